"""Runs a program under a seccomp filter, as an outer container or a security module would confine it.

usage: confine.py [--deny CALL,…] [--missing CALL,…] [--deny-user-namespaces] [--keep-privileges] PROGRAM [ARGUMENT…]

--deny                   these calls fail with EPERM
--missing                these fail with ENOSYS
--deny-user-namespaces   clone and unshare are refused when they ask for one; clone3, into whose argument no filter
                         can look, is missing: what Docker's default profile does
--keep-privileges        without no_new_privs, which only root of a user namespace may leave out
"""

import argparse
import ctypes
import ctypes.util
import errno
import os

NEWUSER = 0x10000000
ALLOW, ERRNO, MASKED_EQ, NNP_ATTRIBUTE = 0x7FFF0000, 0x00050000, 7, 3

# What Docker's default profile keeps from a process without CAP_SYS_ADMIN, besides the user namespaces.
DOCKER_DENIES = ("mount", "umount2", "pivot_root", "setns", "unshare", "fsopen", "fsconfig", "fsmount", "fspick", "open_tree",
                 "move_mount", "mount_setattr", "bpf", "perf_event_open", "sethostname", "setdomainname")


class _Compare(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def _load(deny, missing, deny_user_namespaces, keep_privileges):
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_rule_add_array.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint,
                                               ctypes.POINTER(_Compare)]
    library.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    library.seccomp_load.argtypes = [ctypes.c_void_p]
    context = library.seccomp_init(ALLOW)

    def rule(name, code, *compare):
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number == -1:
            return  # this libseccomp, or this machine, does not have it
        array = (_Compare * len(compare))(*compare)
        result = library.seccomp_rule_add_array(context, ERRNO | code, number, len(compare), array)
        if result not in (0, -errno.EDOM):
            raise OSError(-result, f"filter {name}")

    for name in deny:
        rule(name, errno.EPERM)
    for name in missing:
        rule(name, errno.ENOSYS)
    if deny_user_namespaces:
        rule("clone", errno.EPERM, _Compare(0, MASKED_EQ, NEWUSER, NEWUSER))
        if "unshare" not in deny:
            rule("unshare", errno.EPERM, _Compare(0, MASKED_EQ, NEWUSER, NEWUSER))
        rule("clone3", errno.ENOSYS)
    if keep_privileges:
        library.seccomp_attr_set(context, NNP_ATTRIBUTE, 0)
    result = library.seccomp_load(context)
    if result != 0:
        raise OSError(-result, "load the filter")


def command(*argv, deny=(), missing=(), deny_user_namespaces=False, keep_privileges=False):
    """The command line that runs argv so."""
    line = ["/usr/bin/python3", __file__]
    if deny:
        line.append("--deny=" + ",".join(deny))
    if missing:
        line.append("--missing=" + ",".join(missing))
    if deny_user_namespaces:
        line.append("--deny-user-namespaces")
    if keep_privileges:
        line.append("--keep-privileges")
    return [*line, "--", *map(str, argv)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--deny", default="")
    parser.add_argument("--missing", default="")
    parser.add_argument("--deny-user-namespaces", action="store_true")
    parser.add_argument("--keep-privileges", action="store_true")
    parser.add_argument("program", nargs="+")
    given = parser.parse_args()
    _load([name for name in given.deny.split(",") if name], [name for name in given.missing.split(",") if name],
          given.deny_user_namespaces, given.keep_privileges)
    os.execvp(given.program[0], given.program)


if __name__ == "__main__":
    main()
