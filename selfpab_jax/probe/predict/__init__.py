"""From recordings to minutes of activity: a saved head on long recordings.

`seconds` turns frames into seconds, `clock` gives them dates and hours, `minutes` adds them up, `figure` draws a day,
`files` writes what belongs to a file of recordings, `reading` takes one file through all of this, and `run` all files.
"""
