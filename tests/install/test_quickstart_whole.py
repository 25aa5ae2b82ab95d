"""contrib/quickstart, whole: from a copy of the tree to the run of hello, again (nothing is built twice), and away again.
A step of contrib/check by its own name, since it builds.

Its build directory is set up beforehand with the options of the tree under test, and the compiler cache is told that
another directory with the same text is the same: what is tested is the script, not the compiler."""

import json
import os
import pathlib
import re
import shutil
import subprocess

import pytest

from harness import needs, programs


def tree_files():
    listed = subprocess.run(["git", "-c", "safe.directory=*", "-C", programs.TOP, "ls-files", "--cached", "--others",
                             "--exclude-standard"], capture_output=True, text=True)
    if listed.returncode == 0:
        return [name for name in listed.stdout.splitlines() if (programs.TOP / name).is_file()]
    return [str(path.relative_to(programs.TOP)) for path in programs.TOP.rglob("*")
            if path.is_file() and not path.relative_to(programs.TOP).parts[0].startswith("build")]


def build_options():
    """Those of the tree under test that change what the compiler is told."""
    text = subprocess.run(["meson", "introspect", "--buildoptions", programs.build_dir()], capture_output=True, text=True,
                          check=True).stdout
    wanted = ("buildtype", "b_sanitize", "werror", "b_lto", "b_coverage")
    return [f"-D{option['name']}={str(option['value']).lower()}" for option in json.loads(text) if option["name"] in wanted]


@pytest.fixture(scope="module")
def clone(session_dir):
    """A copy of the tree with build-release set up as said above."""
    for name in ("git", "meson", "ninja"):
        needs.need(f"program:{name}")
    top = session_dir / "clone"
    for name in tree_files():
        target = top / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((programs.TOP / name).read_bytes())
        target.chmod((programs.TOP / name).stat().st_mode & 0o777)
    subprocess.run(["meson", "setup", top / "build-release", top, "--libexecdir=libexec", "-Dtests=disabled", *build_options()],
                   check=True, capture_output=True)
    return top


# Sources and headers are named from the build directory, so only -g tells one copy from another.
CACHE = {"CCACHE_NOHASHDIR": "1", "CCACHE_DIR": os.environ.get("CCACHE_DIR") or str(pathlib.Path.home() / ".cache/ccache")}


@pytest.fixture
def prepared(clone):
    """The clone with its build directory, which --uninstall takes away, as it was."""
    saved = clone / "build-saved"
    if saved.exists():
        shutil.rmtree(clone / "build-release", ignore_errors=True)  # of a test that failed
        saved.rename(clone / "build-release")
    else:
        subprocess.run(["cp", "-a", clone / "build-release", saved], check=True)
    return clone


def files_below(directory):
    return {path.relative_to(directory) for path in directory.rglob("*") if path.is_file()}


def check_three_runs(top, prefix, run):
    """run(*arguments) → (stdout, stderr) of quickstart; prefix: where it puts things."""
    before = files_below(prefix)
    out, err = run()
    assert out.startswith("Hello from a container made by kelp.\n") and "kelp is installed in" in err
    assert "\nchecking this host: kelp doctor\n✓ kernel " in err and "\nlevel: " in err, err
    there = files_below(prefix) - before
    manifest = pathlib.Path("share/kelp/manifest")
    for name in ("bin/kelp", "bin/kelp-oci", "libexec/kelp/kelp-monitor", "libexec/kelp/kelp-image", "libexec/kelp/kelp-init"):
        assert pathlib.Path(name) in there, sorted(there)
    assert manifest in there and any(path.name == "hello.tar" for path in there)
    # Not by their times: Meson strips once more what it has not copied.
    installed = {name: (prefix / name).read_bytes() for name in there}

    out, err = run()
    assert out.startswith("Hello from a container made by kelp.\n")
    assert "ninja: no work to do" in err and "installing " not in err, err  # neither packages nor compilers
    assert {name for name in there if (prefix / name).read_bytes() != installed[name]} == set()

    _, err = run("--uninstall")
    assert "kelp is gone" in err
    assert files_below(prefix) == before and not (prefix / "libexec/kelp").exists()
    assert not (top / "build-release").exists()


@pytest.mark.slow
def test_check_builds_nothing_the_second_time(clone):
    """contrib/check, by its quickest step. Packages are not asked for: that is looked at in tests/e2e/test_quickstart.py."""
    env = {**os.environ, **CACHE, "KELP_TEST_ROOT_AGENT": os.environ.get("KELP_TEST_ROOT_AGENT") or "nobody"}
    env.pop("KELP_BUILD", None)

    def check():
        done = subprocess.run([clone / "contrib/check", "lint"], capture_output=True, text=True, env=env)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.splitlines()[-1], (clone / "build-check-results/gcc-build.log").read_text()

    summary, log = check()
    assert re.fullmatch(r"[1-9]\d* passed, 0 failed, \d+ skipped", summary) and "Compiling" in log
    programs_of = {path: path.stat().st_mtime_ns for path in (clone / "build-check/src").glob("kelp*") if path.is_file()}
    again, log = check()
    assert again == summary and log.splitlines()[-1] == "ninja: no work to do."
    assert programs_of and {path: path.stat().st_mtime_ns for path in programs_of} == programs_of


@pytest.mark.slow
def test_as_an_ordinary_user(prepared, place):
    needs.need("userns")
    (place / "run").mkdir(mode=0o700)
    (place / ".local").mkdir()
    env = {**os.environ, **CACHE, "HOME": str(place), "XDG_RUNTIME_DIR": str(place / "run"), "XDG_DATA_HOME": str(place / "data")}
    env.pop("KELP_BUILD", None)

    def run(*arguments):
        done = subprocess.run([prepared / "contrib/quickstart", *arguments], capture_output=True, text=True, env=env)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout, done.stderr

    check_three_runs(prepared, place / ".local", run)


@pytest.mark.slow
def test_as_root(prepared, place, agent):
    """To /usr/local, where a directory of the test's is mounted for this one program; hello runs as an ordinary user."""
    (place / "local").mkdir()

    def run(*arguments):
        return agent("quickstart", timeout=900, top=str(prepared), local=str(place / "local"), arguments=arguments,
                     environment=CACHE)

    check_three_runs(prepared, place / "local", run)
