"""The one base class of every error whose text is meant for the person at the other end.

Raise a subclass where the fault is known, with what the reader needs: the layer's id, the path,
the reason, and what to do.  `manuka.api` turns it into an ``Err`` reply; nothing else catches it.
"""


class ManukaError(Exception):
    """A fault explained in words a user can act on."""
