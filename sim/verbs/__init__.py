"""What a user can do, one function per verb.

The verbs: plan, simulate, run, compare, calibrate, check, show, data, sample, doctor.

The command line and notebooks call the same functions with the same names; each lives in the file of its
name.
"""
