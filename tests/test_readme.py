"""What the README and the pages of `docs/` show works as printed."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from langadapt_utils import cli, runner
from langadapt_utils.recipe import Recipe
from langadapt_utils.workspace import NOTEBOOKS, Workspace

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))]
PAGES = "\n".join([README, *DOCS])
BLOCKS = re.findall(r"```\w*\n(.*?)```", PAGES, flags=re.DOTALL)
LINES = [line for block in BLOCKS for line in re.sub(r"\\\n\s*", "", block).splitlines()]
COMMANDS = sorted({line.split("  #")[0].strip() for line in LINES})


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("make ")])
def test_a_make_command_is_a_target(command: str) -> None:
    subprocess.run([*shlex.split(command), "--dry-run"], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("langadapt ")])
def test_the_options_of_a_langadapt_command_are_known(command: str) -> None:
    _, name, *arguments = shlex.split(command)
    commands = get_command(cli.app).commands  # type: ignore[attr-defined]
    assert commands[name].make_context(name, arguments)


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("langadapt run")])
def test_a_langadapt_command_is_understood(
    command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[Recipe, list[str]]] = []

    def fake(recipe: Recipe, folder: Path, *, stages: list[str], **_: object) -> Workspace:
        asked.append((recipe, stages))
        return Workspace(tmp_path / "run", Recipe.profile("smoke"))

    monkeypatch.setattr(runner, "run_notebooks", fake)
    monkeypatch.chdir(tmp_path)
    Recipe.profile("cpu").write(tmp_path / "plan.yaml")
    done = CliRunner().invoke(cli.app, shlex.split(command)[1:], catch_exceptions=False)
    assert done.exit_code == 0 and len(asked) == 1, done.output
    recipe, stages = asked[0]
    for option, value in re.findall(r"(--language|--profile|-p) (\S+)", command):
        if option == "-p":
            name, _, wanted = value.partition("=")
            section, _, option = name.rpartition(".")
            found = (
                getattr(getattr(recipe, section), option) if section else getattr(recipe, option)
            )
            found = found[0] if isinstance(found, list) else str(found)
            assert found in (wanted, str(Path.cwd() / wanted))
        else:
            assert value in (recipe.language, recipe.profile_name)
    assert len(stages) == (len(re.findall(r" 0\d\b", command)) or 5)


def test_the_python_example_runs(
    tiny_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    overrides = {
        "base": str(tiny_folder),
        "corpus.english": "builtin",
        "training.budget_tokens": 2_048,
    }
    tiny = Recipe.profile("smoke", overrides=overrides)
    monkeypatch.setattr(Recipe, "profile", lambda name, language: tiny)
    monkeypatch.chdir(tmp_path)
    example = next(block for block in BLOCKS if "import langadapt_utils as la" in block)
    exec(compile(example.replace("1_000", "100"), "README.md", "exec"), {})
    assert "Interval(value=" in capsys.readouterr().out


def test_the_results_are_the_recorded_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from record_reference import MARK, readme_section

    assert README.split(MARK)[1].strip() == readme_section()


def test_the_readme_is_one_page_with_the_notebooks() -> None:
    assert len(README.splitlines()) <= 120
    assert all(name in README for name in NOTEBOOKS.values())
