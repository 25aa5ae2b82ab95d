#!/usr/bin/env python3
"""Adds up the results of contrib/check: JUnit records and steps. The last line is "N passed, N failed, N skipped"."""

import pathlib
import sys
import xml.etree.ElementTree


def what_failed(problem):
    """What pytest or doctest says of a failure, in one line that is short enough for the end of a log."""
    lines = f"{problem.get('message') or ''}\n{problem.text or ''}".splitlines()
    said = " | ".join(line.strip() for line in lines if line.strip())
    return said if len(said) <= 600 else f"{said[:400]} […] {said[-200:]}"


def main(directory):
    passed, failed, skipped = 0, [], {}
    for record in sorted(pathlib.Path(directory).glob("*.xml")):
        for case in xml.etree.ElementTree.parse(record).iter("testcase"):
            name = f"{record.stem}: {case.get('classname')} {case.get('name')}"
            skip = case.find("skipped")
            problems = [*case.iter("failure"), *case.iter("error")]
            if problems:
                failed.append(f"{name}: {what_failed(problems[0])}")
            elif skip is not None:
                skipped.setdefault(skip.get("message") or "skipped", []).append(name)
            else:
                passed += 1
    steps = pathlib.Path(directory) / "steps"
    for line in steps.read_text().splitlines() if steps.exists() else []:
        result, _, name = line.partition(" ")
        if result == "passed":
            passed += 1
        else:
            failed.append(name)
    for reason, names in sorted(skipped.items()):
        print(f"skipped {len(names)}: {reason}")
    for name in failed:
        print(f"FAILED {name}")
    print(f"{passed} passed, {len(failed)} failed, {sum(map(len, skipped.values()))} skipped")
    return 1 if failed or passed == 0 else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
