"""Random images on two engines: the one on manuka has to show what the other shows."""
