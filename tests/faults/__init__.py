"""Inputs that are damaged, commands that are killed, disks without room: what must hold then, tried many times.

    mutate, kinds, raw_kinds, run_kinds, campaign   damaged inputs. Each is read by clickwise and by a plain reader of
                                                    Python's own: the same rows, or one message. A further kind of input
                                                    is a line in KINDS
    interrupt, killed                               prepare and train, killed and run again: the same bits. A further
                                                    command is a line in CASES
    full_disk                                       prepare and predict without room: one message, nothing half-written
    memory                                          the peak memory of prepare
    children, loaded                                the processes in which all of it happens

test_faults.py is the short form, test_long.py the long one (`-m slow`), benchmarks/faults.py saves its figures; with
`--kind csv --number 17` it tells of one damaged input.
"""
