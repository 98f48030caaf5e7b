"""The system calls Python lacks, one small module each; everything above asks the kernel here.

Every function raises OSError with the kernel's errno and the path it was about.  Nothing here
knows what a layer is.
"""
