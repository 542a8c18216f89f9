"""Features of a frozen, pre-trained encoder.

`encoder` loads it, `sensors` matches it with the channels of the data, `windows` and `extract` encode the windows of a
data set, `cache` keeps their features on disk. `streaming` writes the features of long recordings to `files`, and
`sklearn` wraps the encoder as a transformer.
"""
