"""The skeleton of a driver's project: `project` makes it of the files in ``templates``."""
