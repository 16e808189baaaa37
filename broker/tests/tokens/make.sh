#!/usr/bin/env bash
# Makes vectors.json anew. See README.md.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" make_tokens.py "$work"
cp make_tokens.mjs "$work/"
ln -s "${MODULES:?the folder node_modules with jose}" "$work/node_modules"
node "$work/make_tokens.mjs" "$work"
"${PYTHON:-python3}" - "$work" <<'PYTHON'
import json, sys, pathlib
work = pathlib.Path(sys.argv[1])
vectors = json.loads((work / "python.json").read_text())
vectors["tokens"] += json.loads((work / "node.json").read_text())
names = [token["name"] for token in vectors["tokens"]]
assert len(names) == len(set(names)), "names differ"
pathlib.Path("vectors.json").write_text(json.dumps(vectors, indent=1, ensure_ascii=True) + "\n")
forged = sum(token["expected"] != "ok" for token in vectors["tokens"])
print(f"{len(names)} tokens, {forged} of them forged")
PYTHON
