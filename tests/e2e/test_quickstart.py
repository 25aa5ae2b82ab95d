"""The functions of contrib/quickstart, with all that would touch the host replaced. Whole it is run in tests/install."""

import json
import os
import pathlib
import re
import subprocess

import pytest

from harness import programs

CONTRIB = programs.TOP / "contrib"


def files_below(directory):
    return {path.relative_to(directory) for path in directory.rglob("*") if path.is_file()}


def call(place, script, **more):
    """Calls functions of quickstart with all that would touch the host replaced; prefix is the test's own."""
    text = f"""set -euo pipefail
. {CONTRIB}/quickstart
prefix={place}/prefix build={place} manifest={place}/manifest profile={place}/profile
touch "$manifest"
as_root() {{ echo "as root: $*" >&2; case "$1" in apparmor_parser) ;; *) "$@" ;; esac; }}
{script}"""
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, env={**os.environ, "HOME": str(place), **more})
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_apparmor_profiles(place):
    """Only where AppArmor restricts user namespaces; one profile for each program that makes one, by its path."""
    switch = place / "switch"
    _, err = call(place, f"apparmor_switch={switch}; install_apparmor_profiles")
    assert err == "" and not (place / "profile").exists()
    switch.write_text("0\n")
    _, err = call(place, f"apparmor_switch={switch}; install_apparmor_profiles")
    assert err == "" and not (place / "profile").exists()

    switch.write_text("1\n")
    _, err = call(place, f"apparmor_switch={switch}; install_apparmor_profiles")
    text = (place / "profile").read_text()
    assert text.startswith("abi <abi/4.0>,\ninclude <tunables/global>\n")
    for program in ("bin/kelp", "bin/kelp-oci", "libexec/kelp/kelp-monitor", "libexec/kelp/kelp-image"):
        assert f" {place}/prefix/{program} flags=(unconfined) {{\n  userns,\n}}\n" in text
    assert text.count("profile profile.kelp") == 4
    assert f"apparmor_parser -r -W {place}/profile" in err
    assert f"profile {place}/profile" in (place / "manifest").read_text().splitlines()
    _, err = call(place, f"apparmor_switch={switch}; install_apparmor_profiles")
    assert err == "", "the second time nothing is to be done"


def test_apparmor_profiles_without_root(place):
    """Then they are printed, with what is to be done with them."""
    (place / "switch").write_text("1\n")
    _, err = call(place, f"apparmor_switch={place}/switch; as_root() {{ return 1; }}; install_apparmor_profiles")
    assert f"hint: AppArmor keeps user namespaces from kelp until root has put these lines into {place}/profile" in err
    assert f"{place}/prefix/bin/kelp flags=(unconfined)" in err and f"apparmor_parser -r -W {place}/profile" in err
    assert not (place / "profile").exists()


def test_uninstall_takes_away_what_was_noted(place):
    """Files, a profile, a user that was made for it; what others put beside it stays."""
    for name in ("prefix/libexec/kelp/kelp-monitor", "prefix/bin/kelp", "prefix/bin/other", "profile"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("")
    lines = [f"file {place}/prefix/libexec/kelp/kelp-monitor", f"file {place}/prefix/bin/kelp", f"profile {place}/profile",
             "user kelp-somebody"]
    (place / "manifest").write_text("\n".join(lines) + "\n")
    _, err = call(place, f"build={place}/build; userdel() {{ echo $* >{place}/userdel; }}; uninstall")
    assert (place / "userdel").read_text() == "-r kelp-somebody\n" and f"apparmor_parser -R {place}/profile" in err
    assert files_below(place / "prefix") == {pathlib.Path("bin/other")} and not (place / "profile").exists()
    assert not (place / "prefix/libexec").exists()


def test_a_host_with_an_unknown_package_manager_is_told_the_packages(place):
    _, err = call(place, "package_manager() { :; }; install_packages build run")
    assert "libseccomp-dev" in err and "slirp4netns" in err and "uidmap" in err


def test_packages_that_are_missing_are_installed_by_root_or_named(place):
    stub = 'package_manager() { echo apt-get; }; is_installed() { [ "$2" != meson ]; }; as_root() { echo "root: $*"; }'
    out, err = call(place, f"{stub}; install_packages build run")
    assert out == "" and err.splitlines() == [
        "installing meson", "root: env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends meson"]


INSTALLS = {
    "apt-get": "env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends",
    "dnf": "dnf install -y",
    "pacman": "pacman -S --needed --noconfirm",
    "zypper": "zypper --non-interactive install",
    "apk": "apk add",
}


@pytest.mark.parametrize("manager", INSTALLS)
def test_each_package_manager_is_asked_for_what_is_missing_and_not_again(place, manager):
    """The manager is found by its name in PATH; nothing is installed when nothing is missing."""
    tools = place / "tools"
    tools.mkdir()
    (tools / manager).write_text("#!/bin/sh\n")
    (tools / manager).chmod(0o755)
    which = 'command() { case "$2" in apt-get | dnf | pacman | zypper | apk) [ -x "$HOME/tools/$2" ] ;; *) builtin command "$@" ;; esac; }'
    stub = f'{which}; is_installed() {{ [ "$1" = {manager} ] && grep -qx "$2" "$HOME/there"; }}; as_root() {{ echo "root: $*" >&2; }}'
    (place / "there").write_text("")
    script = f'{stub}; package_manager; packages_of {manager} build; packages_of {manager} run; packages_of {manager} test'
    found, *words = call(place, script)[0].splitlines()
    assert found == manager and len(words) == 3 and all(words)
    wanted = f"{words[0]} {words[1]}"
    assert "slirp4netns" in wanted and "meson" in wanted and "libseccomp" in wanted
    out, err = call(place, f"{stub}; install_packages build run")
    assert out == "" and err.splitlines() == [f"installing {wanted}", f"root: {INSTALLS[manager]} {wanted}"]
    (place / "there").write_text("\n".join(wanted.split()) + "\n")
    assert call(place, f"{stub}; install_packages build run") == ("", "")


def as_root_itself(place, *commands):
    """What the script's own as_root does here, for an ordinary user."""
    text = f'. {CONTRIB}/packages.sh; {"; ".join(commands)}'
    return subprocess.run(["bash", "-c", text], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                          env={**os.environ, "PATH": f"{place}/tools:{os.environ['PATH']}"})


def test_root_is_reached_through_sudo_and_else_the_command_is_printed(place):
    tools = place / "tools"
    tools.mkdir()
    (tools / "sudo").write_text('#!/bin/sh\n[ "$1" = -n ] && exit 0\necho "through sudo: $*"\n')
    (tools / "sudo").chmod(0o755)
    done = as_root_itself(place, "as_root apk add meson")
    assert (done.returncode, done.stdout) == (0, "through sudo: apk add meson\n"), done.stderr
    (tools / "sudo").write_text("#!/bin/sh\nexit 1\n")  # it would ask for a password, and nobody is there
    missing = "package_manager() { echo apk; }; is_installed() { false; }; packages_of() { echo meson; }"
    done = as_root_itself(place, missing, "install_packages build")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.splitlines()[1:] == ["this needs root, and sudo cannot be used here; run:", "  apk add meson",
                                            "bash: the packages could not be installed"], done.stderr


def test_a_host_on_which_containers_cannot_run_is_told_what_mends_it(place):
    (place / "prefix/bin").mkdir(parents=True)
    doctor = place / "prefix/bin/kelp"
    doctor.write_text("#!/bin/sh\necho '✗ something'; exit 1\n")
    doctor.chmod(0o755)
    out, err = call(place, "(check_host) && echo went on || echo stopped")
    assert out == "stopped\n" and err.splitlines()[0] == "✗ something" and "cannot be run here" in err.splitlines()[1]
    doctor.write_text("#!/bin/sh\necho '! less'\n")
    assert call(place, "check_host && echo went on") == ("went on\n", "! less\n")


def test_an_unknown_argument(place):
    done = subprocess.run([CONTRIB / "quickstart", "--warp"], capture_output=True, text=True)
    assert done.returncode != 0 and "--warp" in done.stderr and len(done.stderr.splitlines()) == 1


def test_libraries_come_from_the_distribution_and_else_from_their_wraps(place):
    """Each wrap stands in for a library that is asked for by its name; here, where all of them are installed, none did."""
    text = (programs.TOP / "meson.build").read_text()
    wraps = {path.stem for path in (programs.TOP / "subprojects").glob("*.wrap")}
    assert wraps and wraps == set(re.findall(r"= dependency\('([^']+)',[^\n]* fallback: \['\1', ", text))
    assert "wrap_mode" not in text and "force_fallback_for" not in text and "subproject(" not in text
    for name in wraps:
        wrap = (programs.TOP / "subprojects" / f"{name}.wrap").read_text()
        assert re.search(r"^source_url = https://", wrap, re.M) and re.search(r"^source_hash = [0-9a-f]{64}$", wrap, re.M), name
    project = json.loads((programs.build_dir() / "meson-info/intro-projectinfo.json").read_text())
    assert [entry["name"] for entry in project["subprojects"]] == []
