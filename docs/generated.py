"""What the site says of options, public names and errors, taken from the code itself."""

import ast
import inspect
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from langadapt_utils import errors as error_module
from langadapt_utils import recipe
from langadapt_utils.recipe import FREE_OPTIONS, PROFILES, Recipe

PACKAGE = Path(recipe.__file__).parent


def results() -> str:
    """Return the recorded results as the README shows them."""
    text = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")
    return text.split("<!-- results -->")[1].strip().replace("](data/", "](../data/")


def options() -> str:
    """Return a section per section of a recipe, with a heading per option."""
    schema = Recipe.model_json_schema()
    profiles = {name: Recipe.profile(name).model_dump() for name in PROFILES}
    lines: list[str] = []
    for cls, prefix in ((Recipe, ""), *_sections()):
        about = (inspect.getdoc(cls) or "").splitlines()[0] if prefix else "The run as a whole."
        lines += [f"## {prefix or 'run'}", about]
        fields = schema["$defs"][cls.__name__] if prefix else schema
        comments = field_comments(cls)
        for option, field in fields["properties"].items():
            if "$ref" in field or option == "profile_name":
                continue
            name = f"{prefix}.{option}" if prefix else option
            values = {
                profile: (content[prefix] if prefix else content)[option]
                for profile, content in profiles.items()
            }
            lines += [f"### `{name}` {{ #{name} }}", _sentence(comments[option])]
            free = prefix == "training" and option in FREE_OPTIONS
            again = " A stopped run may resume with another value." if free else ""
            lines.append(f"*{_values(field)}.* {_defaults(values)}{again}")
    return "\n\n".join(lines)


def names() -> str:
    """Return the public names with their documentation, grouped as in `__init__.pyi`; then the
    classes of what the functions return.
    """
    trees = _trees()
    classes = {
        node.name: module
        for module, tree in trees.items()
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    }
    lines, public, returned = list[str](), set[str](), set[str]()
    for line in (PACKAGE / "__init__.pyi").read_text(encoding="utf-8").splitlines():
        if heading := re.fullmatch(r"# (A run|Notebook \d|Beyond the notebooks)(: .+)", line):
            lines.append(f"## {heading[1]}{heading[2]}")
        elif found := re.fullmatch(r"from \.([\w.]+) import (\w+) as \w+", line):
            module, name = found.groups()
            lines.append(f"::: langadapt_utils.{module}.{name}")
            public.add(name)
            for node in trees[module].body:
                if isinstance(node, ast.FunctionDef) and node.name == name and node.returns:
                    returned |= set(re.findall(r"\w+", ast.unparse(node.returns))) & set(classes)
    lines.append("## What the functions return")
    lines += [f"::: langadapt_utils.{classes[name]}.{name}" for name in sorted(returned - public)]
    return "\n\n".join(lines)


def errors() -> str:
    """Return a section per class of errors, with its cause and its sentences in the code."""
    trees = list(_trees().values())
    constants = _Texts({})
    for tree in trees:
        constants.read(node for node in tree.body if isinstance(node, ast.Assign))
    said: dict[str, set[str]] = {}
    for tree in trees:
        for name, sentence in raised(tree, constants):
            said.setdefault(name, set()).add(sentence)
    lines: list[str] = []
    for name, cls in inspect.getmembers(error_module, inspect.isclass):
        lines += [f"### {name} {{ #{name.lower()} }}", inspect.getdoc(cls) or ""]
        items = sorted(said.get(name, ()), key=str.casefold)
        lines.append("\n".join(f"* {_escaped(item)}" for item in items))
    return "\n\n".join(lines)


def _trees() -> dict[str, ast.Module]:
    """Return the code of the package by the name of the module in it."""
    paths = {path.relative_to(PACKAGE).with_suffix(""): path for path in PACKAGE.rglob("*.py")}
    return {
        ".".join(name.parts): ast.parse(path.read_text(encoding="utf-8"))
        for name, path in sorted(paths.items())
    }


def field_comments(cls: type) -> dict[str, str]:
    """Return the comment of each field of a class: behind it, else on the lines above it."""
    source = inspect.getsource(cls)
    notes = {
        token.start[0]: (token.string.removeprefix("#").strip(), token.line.lstrip()[0] == "#")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    found: dict[str, str] = {}
    (body,) = ast.parse(source).body
    assert isinstance(body, ast.ClassDef)
    for node in body.body:
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        above: list[str] = []
        line = node.lineno - 1
        while line in notes and notes[line][1]:
            above.insert(0, notes[line][0])
            line -= 1
        behind = [notes[line][0] for line in (node.end_lineno,) if line in notes]
        found[node.target.id] = " ".join(behind or above)
    return found


def raised(tree: ast.Module, constants: "_Texts") -> Iterator[tuple[str, str]]:
    """Yield class and sentence of each error that is made; a value is shown by its name."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        nodes = [node for node in ast.walk(function) if hasattr(node, "lineno")]
        for node in nodes:
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                known = _Texts(constants.by_name)
                known.read(before for before in nodes if before.lineno < node.lineno)
                if node.func.id == "explained" and isinstance(node.args[0], ast.Name):
                    problem, remedy = map(known.of, node.args[1:3])
                    yield node.args[0].id, f"{problem} (…): {remedy}"
                    continue
                sentence = known.of(node.args[0])
                if node.func.id.endswith(("Error", "Failed")) and re.search(r"\w+ \w+", sentence):
                    yield node.func.id, sentence


class _Texts:
    """Which text a name stands for, as far as the code says it."""

    def __init__(self, by_name: dict[str, str]) -> None:
        self.by_name = dict(by_name)

    def read(self, nodes: Iterable[ast.AST]) -> None:
        """Follow assignments, in the order of their lines."""
        assigned = [node for node in nodes if isinstance(node, ast.Assign | ast.AugAssign)]
        for node in sorted(assigned, key=lambda node: node.lineno):
            added = isinstance(node, ast.AugAssign)
            target = node.target if isinstance(node, ast.AugAssign) else node.targets[0]
            pairs = [(target, node.value)]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = list(zip(target.elts, node.value.elts, strict=True))
            for name, value in pairs:
                if isinstance(name, ast.Name) and isinstance(value, ast.JoinedStr | ast.Constant):
                    text = self.by_name.get(name.id, "") if added else ""
                    self.by_name[name.id] = text + self.of(value)

    def of(self, node: ast.expr) -> str:
        """Return the text of an expression."""
        if isinstance(node, ast.Constant):
            return str(node.value)
        if isinstance(node, ast.JoinedStr):
            return "".join(map(self.of, node.values))
        if isinstance(node, ast.FormattedValue):
            return self.of(node.value)
        if isinstance(node, ast.Name):
            return self.by_name.get(node.id, _named(node.id))
        return _named(node.attr) if isinstance(node, ast.Attribute) else "…"


def _named(name: str) -> str:
    return f"‹{name.strip('_').replace('_', ' ').lower()}›"


def _sections() -> Iterator[tuple[type, str]]:
    for name, field in Recipe.model_fields.items():
        if inspect.isclass(field.annotation) and issubclass(field.annotation, recipe._Section):
            yield field.annotation, name


def _values(field: dict[str, Any]) -> str:
    """Return in words which values a schema allows."""
    if "anyOf" in field:
        return " or ".join(_values(part) for part in field["anyOf"])
    if "enum" in field or "const" in field:
        return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    if field["type"] == "array":
        return f"List of: {_values(field['items'])}"
    if field["type"] == "boolean":
        return "`true`, `false`"
    if field["type"] == "string":
        return "Text"
    kind = "Whole number" if field["type"] == "integer" else "Number"
    if {"minimum", "maximum"} <= set(field):
        return f"{kind} from {field['minimum']:g} to {field['maximum']:g}"
    bounds = {"minimum": "at least", "exclusiveMinimum": "above", "exclusiveMaximum": "below"}
    said = [f"{words} {field[bound]:,g}" for bound, words in bounds.items() if bound in field]
    return ", ".join([kind, " and ".join(said)]) if said else kind


def _defaults(values: dict[str, Any]) -> str:
    """Return the default, and what other profiles have."""
    others = {name: value for name, value in values.items() if value != values["cpu"]}
    parts = [f"Default: {_shown(values['cpu'])}"]
    parts += [f"in the profile `{name}`: {_shown(value)}" for name, value in others.items()]
    return "; ".join(parts) + "."


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list):
        return f"`{','.join(map(str, value))}`" if value else "none"
    if isinstance(value, int | float):
        return f"{value:,}" if value >= 1_000 else f"{value:g}"
    return f"`{value}`" if value else "empty"


def _sentence(text: str) -> str:
    """Return a comment as a sentence."""
    first = text[:1] if text.startswith("`") else text[:1].upper()
    return f"{first}{text[1:]}".rstrip(".") + "." if text else ""


def _escaped(text: str) -> str:
    """Return a text in which Markdown reads no marks of its own."""
    return re.sub(r"([\\*_{}\[\]<>#|])", r"\\\1", text)
