"""What a layer is when nobody has mounted it: a tar stream, a list of changes, a file tree.

`tar` reads and writes the stream's format; `apply` and `export` turn a stream into a tree and
back.  Nothing here knows of a storage driver, and nothing below `manuka.linux` is imported.
"""
