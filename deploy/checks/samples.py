"""Prints a sample of a page in Markdown: `python3 samples.py PAGE LANGUAGE PART`, the one block in this language that has this part."""

import re
import sys
from pathlib import Path

page, language, part = sys.argv[1:]
blocks = re.findall(rf"^```{language}\n(.*?)^```$", Path(page).read_text(), re.MULTILINE | re.DOTALL)
meant = [block for block in blocks if part in block]
if len(meant) != 1:
    sys.exit(f"{page} has {len(meant)} samples of {language} with {part!r}, not 1")
print(meant[0], end="")
