"""The README names every verb, every recipe key with its default, and every make target it speaks
of exists."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def stockpot(*words):
    command = [sys.executable, "-m", "stockpot.cli", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_every_recipe_key_stands_in_the_readme_as_it_is():
    lines = [line for line in stockpot("recipe", "--defaults").splitlines()[1:] if line]
    assert len(lines) > 50
    assert not [line for line in lines if line not in README]


def test_every_verb_has_help_and_stands_in_the_readme():
    verbs = re.findall(r"^    ([a-z]+)  ", stockpot("--help"), flags=re.MULTILINE)
    assert {"run", "plan", "status", "verify", "recipe"} <= set(verbs)
    for verb in verbs:
        assert f"`stockpot {verb}" in README
        assert "usage" in stockpot(verb, "--help")


def test_every_make_target_of_the_readme_exists():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^(?:make|`make) ([a-z-]+)", README, flags=re.MULTILINE))
    assert targets
    stages = re.search(r"^STAGES := (.*)$", makefile, flags=re.MULTILINE).group(1).split()
    for target in targets:
        assert target in stages or re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
