#!/usr/bin/env python3
"""Writes a JSON file, without white space and comments, as a C++ raw string: embed_json.py IN OUT."""
import json
import sys


def without_comments(value):
    if isinstance(value, dict):
        return {k: without_comments(v) for k, v in value.items() if k != "comment"}
    if isinstance(value, list):
        return [without_comments(v) for v in value]
    return value


with open(sys.argv[1], encoding="utf-8") as source:
    document = without_comments(json.load(source))
with open(sys.argv[2], "w", encoding="utf-8") as target:
    target.write('R"json(' + json.dumps(document, separators=(",", ":")) + ')json"\n')
