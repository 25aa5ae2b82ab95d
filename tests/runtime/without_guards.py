#!/usr/bin/env python3
"""What keeps a container in, guard by guard, and the test that fails on a kelp-oci without it.

    tests/runtime/without_guards.py [--list] [NAME…]

Takes each guard (or those named) out of a copy of the tree, builds kelp-oci, and runs its tests, which must fail, while an
ordinary start must still work: so each test is known to be able to fail, and each guard to do something by itself. As
tests/run, it drops to the test user when it is root. test_isolation.py holds the table against the source, so that it
cannot be wrong for long; the whole takes half an hour, and is due when a guard or its test has changed. Guards of the
kernel's own (setgroups denied below a map of one's own, the pid namespace that dies with its first process) have tests, but
nothing here to take out.
"""

import argparse
import collections
import filecmp
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

HERE = pathlib.Path(__file__).resolve().parent
TOP = HERE.parent.parent
ISOLATION, REUSE, CGROUP = "test_isolation.py", "test_pid_reuse.py", "test_cgroup_v2.py"

# changes: [(file below src/, text that stands there once, what stands in its place)]
# tests: [(file, test)], all of which fail without the guard, for at least one of their parameters
Guard = collections.namedtuple("Guard", "name changes tests")


def guard(name, file, text, instead, *tests, more=()):
    return Guard(name, [(file, text, instead), *more], tests)


INIT, EXEC, ROOTFS, CONTAINER = "runtime/init.cc", "runtime/exec.cc", "runtime/rootfs.cc", "runtime/container.cc"
CLOSE_INIT = ("  close_all_but(3 + plan.preserve_fds,\n"
              "                {link.fd(), plan.gate.get(), plan.watch.get(), labels.apparmor_fd(), labels.selinux_fd()});\n")
CLOSE_EXEC = "  close_all_but(3 + plan.preserve_fds, {link.fd(), labels.apparmor_fd(), labels.selinux_fd()});\n"

GUARDS = [
    # ---- our own program
    guard("sealed-copy", "runtime/main.cc", "seal_self(argv);", ";", (ISOLATION, "test_own_program_is_not_overwritten")),
    # ---- descriptors, working directory
    guard("descriptors-of-run", INIT, CLOSE_INIT, "", (ISOLATION, "test_leaked_descriptors_are_closed"),
          (ISOLATION, "test_program_in_a_leaked_descriptor")),
    guard("descriptors-of-exec", EXEC, CLOSE_EXEC, "", (ISOLATION, "test_leaked_descriptors_are_closed"),
          (ISOLATION, "test_program_in_a_leaked_descriptor")),
    guard("working-directory-inside", "runtime/payload.cc", "|| now[0] != '/')", "&& false)",
          (ISOLATION, "test_working_directory_in_a_preserved_descriptor")),
    guard("exec-is-not-dumpable", EXEC, "if (::prctl(PR_SET_DUMPABLE, 0) < 0) throw_errno(\"become non-dumpable\");", ";",
          (ISOLATION, "test_exec_is_not_looked_into"),
          more=[(EXEC, "if (::prctl(PR_SET_DUMPABLE, 0) < 0) throw_errno(\"stay non-dumpable\");",
                 "::prctl(PR_SET_DUMPABLE, 1);")]),
    guard("joining-is-not-dumpable", "runtime/plan_namespaces.cc", "plan.hidden = plan.hidden && !plan.new_user;",
          "plan.hidden = false;", (ISOLATION, "test_start_in_a_joined_pid_namespace_is_not_looked_into")),
    # ---- paths of the container
    guard("paths-stay-in-the-root", "sys/safe_path.cc",
          "return Fd(openat2(rootfd, std::string(path), flags, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS));",
          "return Fd(openat2(rootfd, \"./\" + std::string(path), flags, mode, 0));",
          (ISOLATION, "test_mounts_do_not_follow_racing_links"), (ISOLATION, "test_mounts_do_not_go_through_descriptors"),
          (ISOLATION, "test_working_directory_through_links_of_the_image"),
          (ISOLATION, "test_terminal_in_a_directory_that_is_a_link_of_the_image")),
    guard("procfs-at-its-place", ROOTFS, "const Fd place = of_the_kernel ?", "const Fd place = false && of_the_kernel ?",
          (ISOLATION, "test_kernel_file_systems_are_not_moved_by_links"),
          (ISOLATION, "test_proc_at_another_place_stays_out_of_a_link"),
          (ISOLATION, "test_proc_is_not_moved_by_racing_links")),
    guard("console-is-no-link", "runtime/terminal.cc",
          "place = Fd(::openat(dev.get(), \"console\", O_PATH | O_NOFOLLOW | O_CLOEXEC));",
          "place = Fd(::openat(dev.get(), \"console\", O_PATH | O_CLOEXEC));",
          (ISOLATION, "test_console_is_not_moved_by_a_link")),
    guard("ptmx-of-a-devpts", "runtime/terminal.cc", "if (fs.f_type != DEVPTS_SUPER_MAGIC)", "if (false)",
          (ISOLATION, "test_a_false_devpts_is_refused")),
    # ---- masks, read-only paths, settings
    guard("mask-is-the-null-device", ROOTFS, "if (!S_ISCHR(info.st_mode) || info.st_rdev != makedev(1, 3))", "if (false)",
          (ISOLATION, "test_mask_source_is_not_the_images")),
    guard("masks-follow-links", ROOTFS,
          "    const Fd place = sys::try_open_in_root(root, path, O_PATH);\n    if (!place) {\n"
          "      if (errno == ENOENT || errno == ENOTDIR) continue;\n      throw_errno(\"mask {}\", path);",
          "    const Fd place = sys::try_open_in_root(root, path, O_PATH | O_NOFOLLOW);\n    if (!place) {\n"
          "      if (errno == ENOENT || errno == ENOTDIR) continue;\n      throw_errno(\"mask {}\", path);",
          (ISOLATION, "test_masks_follow_links_inside")),
    guard("masks-after-the-mounts", INIT, "  step(\"masked paths\", [&] { mask_paths(root, config.masked_paths); });\n", "",
          (ISOLATION, "test_masks_cover_later_mounts"),
          more=[(INIT, "  const auto readonly_later = step(\"mounts\"",
                 "  mask_paths(root.get(), config.linux_.masked_paths);\n  const auto readonly_later = step(\"mounts\"")]),
    guard("read-only-paths-follow-links", ROOTFS,
          "    const Fd place = sys::try_open_in_root(root, path, O_PATH);\n    if (!place) {\n"
          "      if (errno == ENOENT || errno == ENOTDIR) continue;\n      throw_errno(\"make {} read-only\", path);",
          "    const Fd place = sys::try_open_in_root(root, path, O_PATH | O_NOFOLLOW);\n    if (!place) {\n"
          "      if (errno == ENOENT || errno == ENOTDIR) continue;\n      throw_errno(\"make {} read-only\", path);",
          (ISOLATION, "test_masks_follow_links_inside")),
    guard("read-only-paths-after-the-mounts", INIT,
          "  step(\"read-only paths\", [&] { make_paths_readonly(root, config.readonly_paths); });\n", "",
          (ISOLATION, "test_masks_cover_later_mounts"),
          more=[(INIT, "  const auto readonly_later = step(\"mounts\"",
                 "  make_paths_readonly(root.get(), config.linux_.readonly_paths);\n"
                 "  const auto readonly_later = step(\"mounts\"")]),
    guard("settings-go-to-a-procfs", "runtime/node_settings.cc", "if (fs.f_type != PROC_SUPER_MAGIC)", "if (false)",
          (ISOLATION, "test_settings_reach_the_kernel_or_fail")),
    # ---- files of the image, of the engine
    guard("passwd-is-a-file", "runtime/payload.cc", "O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC", "O_RDONLY | O_CLOEXEC",
          (ISOLATION, "test_passwd_of_the_image_cannot_hold_a_start")),
    guard("log-is-no-link", "runtime/main.cc", "const int follow = descriptor ? 0 : O_NOFOLLOW;",
          "const int follow = descriptor ? 0 : 0;", (ISOLATION, "test_log_is_not_written_through_a_link")),
    guard("pid-file-is-replaced", "runtime/create.cc",
          "sys::replace_file(c.options.pid_file, std::to_string(c.first.pid), 0644);",
          "sys::write_file(c.options.pid_file, std::to_string(c.first.pid));", (ISOLATION, "test_pid_file_replaces_a_link")),
    # ---- privileges
    guard("no-new-privileges", "runtime/privileges.cc",
          "if (plan.no_new_privs && ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)", "if (false)",
          (ISOLATION, "test_no_new_privileges_stops_set_user_id_programs")),
    guard("filter-comes-last", "runtime/privileges.h", "if (!plan.no_new_privs) load_seccomp();",
          "::prctl(38, 1, 0, 0, 0);\n  load_seccomp();", (ISOLATION, "test_filter_is_loaded_last"),
          more=[("runtime/privileges.h", "if (plan.no_new_privs) load_seccomp();", ""),
                ("runtime/privileges.h", "#include <cstdint>", "#include <sys/prctl.h>\n\n#include <cstdint>")]),
    guard("groups-of-the-caller", "runtime/privileges.cc", "if (!plan.keep_groups) set_groups(plan);", "",
          (ISOLATION, "test_groups_of_the_caller_stay_outside")),
    # ---- signals, exec, and a number that is somebody else's by now
    guard("start-time-tells-whose-it-is", CONTAINER, "look->start_time != record.start_time || ", "",
          (ISOLATION, "test_reused_pid_is_left_alone"), (REUSE, "test_number_of_the_container_goes_to_another")),
    guard("number-of-a-thread", "sys/clone.cc", "if (pid > 0 && (errno == EINVAL || errno == ENOENT)) errno = ESRCH;", "",
          (ISOLATION, "test_reused_pid_is_left_alone")),
    guard("exec-looks-again", EXEC,
          "if (!sys::pidfd_alive(plan.target.get())) throw_error(\"cannot exec in a stopped container\");", "",
          (REUSE, "test_number_of_the_container_goes_to_another")),
    guard("kill-all-looks-again", "runtime/processes.cc",
          "if (!std::binary_search(still.begin(), still.end(), pid)) continue;", "",
          (REUSE, "test_number_of_the_container_goes_to_another")),
    guard("kill-all-freezes", "runtime/processes.cc", "if (freeze) cgroup::freeze(record.cgroup, true);", "",
          (CGROUP, "test_in_a_pure_view")),
    guard("delete-kills-the-group", "runtime/processes.cc", "if (own_group(record)) cgroup::kill_all(record.cgroup);", "",
          (CGROUP, "test_in_a_pure_view"),
          more=[("runtime/create.cc", "if (cgroup::populated(record->cgroup)) cgroup::kill_all(record->cgroup);", "")]),
    # ---- what fails half-way
    guard("failed-create-removes-its-state", "runtime/create.cc", "c.undo.add([&c] { c.container->remove(); });", "",
          (ISOLATION, "test_create_under_limits_of_the_caller_leaves_nothing")),
]


def apply(tree, entry):
    """{path: original text} of what it changed."""
    before = {}
    for file, text, instead in entry.changes:
        path = tree / "src" / file
        content = path.read_text()
        before.setdefault(path, content)
        if content.count(text) != 1:
            sys.exit(f"{entry.name}: in src/{file} stands {content.count(text)} times: {text}")
        path.write_text(content.replace(text, instead))
    return before


def copy_changed(source, target):
    """With a new time: a run that was interrupted has left objects younger than the text that takes its place now."""
    if not os.path.exists(target) or not filecmp.cmp(source, target, shallow=False):
        shutil.copy(source, target)
    return target


def wrong_entries():
    """Lines about guards that are not where the table says, and tests that are not there."""
    for entry in GUARDS:
        for file, text, _ in entry.changes:
            if (TOP / "src" / file).read_text().count(text) != 1:
                yield f"{entry.name}: not once in src/{file}: {text}"
        for file, test in entry.tests:
            if f"def {test}(" not in (HERE / file).read_text():
                yield f"{entry.name}: no {test} in {file}"


def run_tests(tree, build, tests):
    """Names of those that failed, None when the run itself did."""
    report = build / "without-guards.xml"
    report.unlink(missing_ok=True)
    # The peers would only take time; for tests that know one runtime this says nothing.
    env = {**os.environ, "KELP_BUILD": str(build), "RUNTIME": "kelp-oci,kelp-oci-nested"}
    nodes = sorted({str(tree / "tests/runtime" / file) for file, _ in tests})
    words = " or ".join(test for _, test in tests)
    with tempfile.TemporaryDirectory(prefix="kelp-guards-", dir="/tmp") as directory:
        os.chmod(directory, 0o777)
        out = pathlib.Path(directory) / "report.xml"
        subprocess.run([tree / "tests/run", "-q", f"--junitxml={out}", *nodes, "-k", words], env=env,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if not out.exists():
            return None
        cases = xml.etree.ElementTree.parse(out).iter("testcase")
        return {case.get("name").split("[")[0] for case in cases
                if case.find("failure") is not None or case.find("error") is not None}


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1].strip())
    parser.add_argument("--list", action="store_true")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    chosen = [entry for entry in GUARDS if not options.names or entry.name in options.names]
    if options.list:
        for entry in chosen:
            print(f"{entry.name:32} {', '.join(test for _, test in entry.tests)}")
        return 0
    # A payload that multiplies itself has no bounds where the guard is gone that would end it.
    resource.setrlimit(resource.RLIMIT_NPROC, (4000, 4000))
    bad = 0
    tree = TOP / "build-guards"
    for part in ("src", "tests", "contrib", "share", "man", "completions"):
        if (TOP / part).exists():
            shutil.copytree(TOP / part, tree / part, dirs_exist_ok=True, copy_function=copy_changed)
    for path in [*TOP.glob("*meson*"), *(TOP / name for name in ("LICENSE", "README.md", "CHANGELOG.md", ".clang-format"))]:
        copy_changed(path, tree / path.name)
    build = tree / "build"
    if not (build / "build.ninja").exists():
        subprocess.run(["meson", "setup", build, tree], check=True, stdout=subprocess.DEVNULL)
    programs = ["src/kelp-oci", "tests/payload/probe", "tests/payload/kill_at"]
    for entry in chosen:
        before = apply(tree, entry)
        try:
            done = subprocess.run(["nice", "-n", "1", "ninja", "-C", build, "-j2", *programs], capture_output=True, text=True)
            if done.returncode != 0:
                print(f"{entry.name:32} DOES NOT BUILD\n{done.stdout[-2000:]}", flush=True)
                bad += 1
                continue
            works = run_tests(tree, build, [("test_lifecycle.py", "test_create_start_delete")]) == set()
            failed = run_tests(tree, build, entry.tests)
            missing = [test for _, test in entry.tests if failed is None or test not in failed]
            verdict = "ok" if works and not missing else "THE REST IS BROKEN" if not works else \
                f"NOT FELT by {', '.join(missing)}"
            bad += verdict != "ok"
            print(f"{entry.name:32} {verdict}", flush=True)
        finally:
            for path, text in before.items():
                path.write_text(text)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
