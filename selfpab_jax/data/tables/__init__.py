"""Tables of users: how text is written, timestamps, columns, and the format that ties them together."""
