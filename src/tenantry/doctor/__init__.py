"""What looks a deployment over: checks that read, each with findings and with what to do about them.

A check is a function from a `Site` to findings, named in `registry.CHECKS`, with a section of its name in
docs/doctor.md. Nothing here changes anything.
"""
