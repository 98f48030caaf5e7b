"""What an engine and a plugin say to each other: ``manuka trace``.

`proxy` stands between the two and forwards every byte as it is; `observer` reads along and makes
a `call.Call` of each request and its reply.  What is done with calls: `show` prints each one and
their sum, `timeline` draws them, `replay` makes them again on another plugin.

Easy to get wrong: the traffic must not depend on being understood.  What is no proper HTTP, or
ends in the middle, passes as it came, and is a call with an error.
"""
