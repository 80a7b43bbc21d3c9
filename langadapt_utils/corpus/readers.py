"""Readers: the documents of a file, in any of the supported formats and compressions."""

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import statistics
import sys
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial, partialmethod
from itertools import chain, dropwhile, groupby, islice
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import pyarrow as pa
import pyarrow.json
import pyarrow.parquet
import regex
from datasets import Dataset, Features
from more_itertools import constrained_batches, rstrip, spy

from ..chat import conversation
from ..errors import CorpusError, brief, explained
from ..languages import columns_of
from ..recipe import CorpusRecipe, flat
from ..sources import text_kind

Row = dict[str, Any]
Part: TypeAlias = Row | pa.RecordBatch  # a row, or a block of rows
Source = tuple[Dataset, list[Row]]  # its documents, and how each of its files was read
BLOCK = 8_000_000  # bytes of JSON lines that are parsed together
PEEKED = 100  # rows that tell the column of the text
HEAD = 10_000_000  # characters of a .txt file in which the separator of documents is looked for
NUMBERED = regex.compile(r"\d+\t")  # how the Leipzig corpora begin a line
RAW = regex.compile("[\udc80-\udcff]")  # bytes that are not UTF-8, as Python keeps them
LETTER = regex.compile(r"\p{L}")
SENTENCE = regex.compile(r"(?V1)\s.*\p{STerm}\W*$|[\p{STerm}--[!-~]]$")
CODE = regex.compile(r"https?:\S+|[!-~]+[\d/_.@][!-~]+")  # an address, a file or a number
DAMAGED = pa.ArrowException, OSError, EOFError, lzma.LZMAError, zlib.error, UnicodeError
DATES = OverflowError, KeyError  # out of range, or in an unknown time zone
NOT_UTF8 = "is not UTF-8: convert the file, for example with `iconv`"
MESSAGES = "messages"  # the column of conversations
DELIMITERS = ",;\t|"  # of CSV; the header shows which
NAMES = "id", "domain"  # columns that are not the text
MAGIC = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18"
UNPACK: list[Callable[[Path], Any]] = [gzip.open, bz2.open, lzma.open]
UNPACK += [partial(pa.input_stream, compression="zstd")] * 2  # by MAGIC, the first bytes


@dataclass
class Reading:
    """How a file is read, with counts.

    Attributes:
        file: path, or name of a data set.
        place: the part of the path that begins the ids of documents without an own id.
        recipe: gives the column of the text (empty: found in the first rows) and the fraction of
            lines that may be unreadable.
        language: code of the text, by which columns of translations are named.
        rule: how documents were found.
        documents: number of documents with text.
        megabytes: of their text.
        empty: number of documents without text.
        left_out: number of unreadable lines that were skipped.
        cut: whether the limit ended the reading.
        normalised: number of texts that were changed to the normal form.
    """

    file: str
    place: str
    recipe: CorpusRecipe
    language: str = ""
    rule: str = ""
    documents: int = 0
    megabytes: float = 0.0
    empty: int = 0
    left_out: int = 0
    cut: bool = False
    normalised: int = 0
    _first_problem: str = ""
    _columns: pa.Schema | None = None  # of blocks, the text last

    @property
    def rows(self) -> int:
        """Number of rows so far, also of empty and unreadable ones."""
        return self.documents + self.empty + self.left_out

    def about(self) -> Row:
        """Return rule and counts of a file that was read.

        Raises:
            CorpusError: too many lines are unreadable.
        """
        allowed = self.recipe.skip_bad
        if self.left_out > allowed * self.rows:
            limit = f"more than corpus.skip_bad={allowed:g} allows (first: {self._first_problem})"
            problem = f"{self.left_out} of {self.rows} rows of {self.file} cannot be read, {limit}"
            raise CorpusError(f"{problem}: correct them, or raise corpus.skip_bad")
        told = {n: v for n, v in vars(self).items() if n != "recipe" and n[0] != "_"}
        return told | {"rows": self.rows}

    def parts(self) -> Iterator[Part]:
        """Yield one row per document with its text in the column `text`, or blocks of rows.

        Raises:
            CorpusError: the file cannot be read; the message names the line if the file has lines.
        """
        if not (path := Path(self.file)).stat().st_size:  # a part without rows
            return
        problem, remedy = f"cannot read {path}", "give a complete file, text in UTF-8"
        with explained(CorpusError, problem, remedy, (*DAMAGED, *DATES)), opened(path) as file:
            yield from self.with_text(getattr(self, f"_{text_kind(path)[1:]}")(file))

    def with_text(self, parts: Iterable[Part]) -> Iterator[Part]:
        """Find the column of the text in the first rows and rename it to `text`.

        Blocks, which may come after it, have the columns `id`, `domain` and `text`.
        """
        parts = map(self._usable, parts)
        if self.recipe.text_field == MESSAGES:
            return (yield from self._conversations(parts))
        head, parts = spy(parts, 1 + PEEKED)
        first = next(filter(len, head), {})  # an unreadable row is empty
        if not first and self._first_problem:
            problem = f"the first {len(head)} rows of {self.file} cannot be read"
            raise CorpusError(f"{problem} (the first: {self._first_problem}): correct them")
        if not head:
            return
        name, needed = self.recipe.text_field, self.language != "en" and first.keys() != {"text"}
        if not name or not (needed or any(name in row for row in head)):
            name = text_column(head, self.language, self.file)
        if not any(name in row for row in head):
            raise _no_column(name, first, self.file)
        self.rule = self.rule or f"a document per row, column {name}"
        kinds = [(own, pa.int64() if type(first.get(own)) is int else pa.string()) for own in NAMES]
        self._columns = None if name in NAMES else pa.schema([*kinds, (name, pa.string())])
        for part in parts:
            if isinstance(part, pa.RecordBatch):
                yield part
            elif not isinstance(text := part.get(name, ...), str | None):
                kind = "no value" if text is ... else f"a value of type {type(text).__name__}"
                self._leave_out(f"has {kind} in column '{name}', not text: correct it")
            else:
                yield part | {"text": text or ""}

    def _usable(self, part: Part) -> Part:
        """Return a row with the text of the language in place of columns with translations.

        A row with bytes that are not UTF-8 becomes empty.
        """
        if isinstance(part, pa.RecordBatch):
            return part
        texts = (own for own in part.values() if isinstance(own, str))
        if self._first_problem and any(map(RAW.search, texts)):
            return {}
        for name, own in [pair for pair in part.items() if isinstance(pair[1], dict)]:
            if self.language in own or (codes := [*columns_of(self.language, tuple(own))]):
                part = part | {name: own[self.language if self.language in own else codes[0]]}
        return part | flat(part) if "." in self.recipe.text_field else part

    def _conversations(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Yield rows of chat data with the conversation in the column `text`."""
        self.rule = "a conversation per row"
        for row in rows:
            try:
                yield row | {"text": conversation(row)}
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                roles = "role (system, user or assistant) and content"
                wanted = f"give messages with {roles}, or prompt and response"
                self._leave_out(f"is no conversation with an answer: {wanted}", error)

    def _lines(self, file: Iterable[bytes]) -> Iterator[str]:
        """Yield lines; one that is not UTF-8 raises an error, or keeps its bytes as `RAW`."""
        for number, raw in enumerate(file, start=1):
            if number == 1 and raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise CorpusError(f"{self.file} is in UTF-16 and {NOT_UTF8}")
            try:
                yield raw.decode("utf-8-sig")  # joined files have marks within
            except UnicodeDecodeError as error:
                self._note(NOT_UTF8, f"line {number}", error)
                yield raw.decode(errors="surrogateescape")

    def _leave_out(self, problem: str, error: Exception | None = None) -> None:
        """Count an unreadable row; raise an error if no row may be skipped."""
        self.left_out += 1
        unit = "line" if text_kind(Path(self.file)) == ".jsonl" else "row"
        self._note(problem, f"{unit} {self.rows}", error)

    def _note(self, problem: str, where: str, error: Exception | None) -> None:
        """Note an unreadable line; raise an error if none may be skipped."""
        self._first_problem = self._first_problem or f"{where}, which {problem}"
        if not self.recipe.skip_bad:
            remedy = "set corpus.skip_bad to the fraction of lines that may be skipped"
            raise CorpusError(f"{self.file}: {where} {problem}, or {remedy}") from error

    def _txt(self, file: BinaryIO) -> Iterator[Row]:
        parts = constrained_batches(self._lines(file), HEAD, strict=False)
        head = next(parts, ())
        lines = chain(head, chain.from_iterable(parts))
        sizes = [len(line.strip()) for line in "".join(head).strip().split("\n")]
        # A few empty lines among lines of any length, such as of translations, separate nothing.
        wrapped = max(sizes) < 1.5 * statistics.median(sizes)
        if sizes.count(0) > (0 if wrapped else len(sizes) // 250):
            self.rule = "documents between blank lines"
            runs = groupby(lines, key=lambda line: bool(line.strip()))
            documents = ("".join(run) for filled, run in runs if filled)
        else:
            numbered = all(NUMBERED.match(line.lstrip()) for line in head if line.strip())
            self.rule = "a document per line" + ", numbers dropped" * numbered
            # Empty lines keep the others in their places.
            documents = (line.partition("\t")[2] if numbered else line for line in lines)
        for document in rstrip(documents, lambda own: not own.strip()):
            yield {"text": document.rstrip("\r\n")}

    def _md(self, file: BinaryIO) -> Iterator[Row]:
        self.rule = "one document"
        yield {"text": file.read().decode("utf-8-sig")}

    def _jsonl(self, file: BinaryIO, begun: Sequence[bytes] = ()) -> Iterator[Part]:
        head = [*begun, *islice(file, 1 + PEEKED)]
        if head and head[0].lstrip().startswith(b"["):  # an array under another name
            return (yield from self._json(io.BytesIO(b"".join([*head, *file]))))
        yield from self._json_rows(head, 1)
        number, lines = 1 + len(head), ahead(iter(partial(file.readlines, BLOCK), []))
        for group, blocks in ahead((group, self._parsed(group)) for group in lines):
            yield from self._json_rows(group, number) if blocks is None else filter(len, blocks)
            number += len(group)

    def _parsed(self, lines: list[bytes]) -> list[pa.RecordBatch] | None:
        """Parse lines with a JSON object each; None if Python has to look at each line.

        Before a line of more than 1 MB, pyarrow gives an empty block.
        """
        if not (self._columns and all(line.startswith(b"{") for line in lines)):
            return None
        options = pyarrow.json.ParseOptions(self._columns, unexpected_field_behavior="ignore")
        try:
            table = pyarrow.json.read_json(pa.BufferReader(b"".join(lines)), parse_options=options)
            table.validate(full=True)  # of UTF-8
        except pa.ArrowInvalid:
            return None
        whole = len(table) == len(lines) and not table[-1].null_count
        return table.rename_columns([*NAMES, "text"]).to_batches() if whole else None

    def _json_rows(self, lines: list[bytes], first: int) -> Iterator[Row]:
        for number, line in enumerate(lines, first):
            try:
                text = line.decode("utf-8-sig").strip()
                row = {**json.loads(text)} if text else None  # a packed file may be empty
            except (ValueError, TypeError, RecursionError) as error:
                broken = isinstance(error, UnicodeDecodeError)
                problem = NOT_UTF8 if broken else f"is no JSON object ({error}): correct it"
                self._note(problem, f"line {number}", error)
                row = {}
            yield from [] if row is None else [row]

    def _json(self, file: BinaryIO) -> Iterator[Row]:
        begun = [file.readline(), file.readline()]
        if all(line.startswith(b"{") and line.rstrip().endswith(b"}") for line in begun):
            return (yield from self._jsonl(file, begun))  # under another name, as is common
        raw = b"".join([*begun, file.read()])
        try:
            content = json.loads(raw)
        except UnicodeDecodeError as error:
            self._note(NOT_UTF8, "line 1", error)
            return (yield {})
        except (ValueError, RecursionError):  # perhaps lines of JSON
            return (yield from self._json_rows(raw.splitlines(), 1))
        names = self.recipe.text_field or "text", self.language
        kind: type = list if names[0] == MESSAGES else str
        if isinstance(content, dict) and any(isinstance(content.get(n), kind) for n in names):
            content = [content]  # one document, whatever lists it has beside its text
        elif isinstance(content, dict):
            lists = [part for part in content.values() if isinstance(part, list)]
            rows = lists[0] if len(lists) == 1 else []
            one = rows[0] if rows and isinstance(rows[0], dict) else {}
            named = any(name in part for name in names for part in (content, one))
            # A sentence beside the list is the text, unless the list has sentences, too.
            alone = _said(content.values()) and not (named or _said([*one.values(), *rows[:1]]))
            content = rows if rows and not alone else [content]
        for row in content if isinstance(content, list) else [content]:
            yield row if isinstance(row, dict) else {"text": row}

    def _csv(self, file: BinaryIO, usual: str = ",") -> Iterator[Row]:
        csv.field_size_limit(sys.maxsize)
        lines = dropwhile(str.isspace, self._lines(file))
        header = RAW.sub("?", next(lines, ""))
        # A tab is no punctuation of a name; the usual delimiter comes before others.
        mark = "\t" if "\t" in header else max(usual + DELIMITERS, key=header.count)
        cells, head = header.rstrip("\r\n").split(mark), list(islice(lines, 1_000))
        named = self.recipe.text_field or "text" in map(str.strip, cells)
        if not named and (cells[0].isdecimal() or _said(cells)):
            remedy = "add a header line before it, or name its column in corpus.text_field"
            raise CorpusError(f"{self.file} begins with {header[:60]!r}: {remedy}")
        every: Iterable[str] = chain([header], head, lines)
        if mark == "\t" and len(cells) > 1:
            every = _quoted(every, len(cells))
        absent: Any = ...  # in rows with fewer cells
        # A cell that begins with a space and a quotation may go on after it.
        spaced = mark != "\t" and "after" not in _problem(head, mark, skipinitialspace=True)
        options: Any = {"delimiter": mark, "skipinitialspace": spaced}
        rows, place = csv.DictReader(every, restval=absent, strict=True, **options), 2
        try:
            rows.fieldnames = [name.strip() for name in rows.fieldnames or ()]
            for row in rows:
                if None in row:
                    many = "has more cells than the header: quote its texts"
                    self._note(many, f"line {place}", None)
                yield {} if None in row else row
                place = rows.line_num + 1
        except csv.Error as error:
            problem = f"{self.file}: the row in line {place} is not CSV ({error})"
            remedy = "quote cells that contain line breaks, and double the quotes inside cells"
            raise CorpusError(f"{problem}: {remedy}") from error

    _tsv = partialmethod(_csv, usual="\t")

    def _parquet(self, file: BinaryIO) -> Iterator[Row]:
        yield from _rows(pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=1_000))

    def _arrow(self, file: BinaryIO) -> Iterator[Row]:
        try:
            batches: Any = pa.ipc.open_stream(file)
        except pa.ArrowInvalid:  # the form with a footer
            file.seek(0)
            whole = pa.ipc.open_file(file)
            batches = map(whole.get_batch, range(whole.num_record_batches))
        yield from _rows(batches)


def _rows(batches: Iterable[pa.RecordBatch]) -> Iterator[Row]:
    """Yield rows; `datasets` writes columns of several types as JSON."""
    for batch in batches:
        as_json = "arrow.json" in str(batch.schema)
        decode = Features.from_arrow_schema(batch.schema).decode_example if as_json else dict
        yield from map(decode, batch.to_pylist())


def _said(cells: Iterable[Any]) -> bool:
    """Return whether a cell has a sentence, or long text."""
    return any(len(own) >= 50 or SENTENCE.search(own) for own in cells if isinstance(own, str))


def _quoted(lines: Iterable[str], columns: int) -> Iterator[str]:
    """Yield tab-separated lines; where quotation marks are mere characters, they are doubled.

    A quotation goes on in the next line if the row has not more than all columns then.
    """
    row: list[str] = []
    for line in lines:
        if row and ("".join([*row, line]).count("\t") >= columns or len(row) > PEEKED):
            yield from map(_doubled, row)
            row = []
        row.append(line)
        if (len(row) == 1 and '"' not in line) or not _problem(row, "\t"):
            yield from row
            row = []
    yield from map(_doubled, row)


def _doubled(line: str) -> str:
    cells = line.rstrip("\r\n").replace('"', '""').split("\t")
    return "\t".join(f'"{cell}"' for cell in cells) + "\n"


def _problem(lines: Iterable[str], mark: str, **options: Any) -> str:
    """Return what CSV does not allow in some lines, if anything."""
    try:
        deque(csv.reader(lines, delimiter=mark, strict=True, **options), maxlen=0)
    except csv.Error as error:
        return str(error)
    return ""


def ahead(items: Iterable[Any]) -> Iterator[Any]:
    """Yield items; a thread makes the next one meanwhile."""
    items, end = iter(items), object()
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item


def opened(path: Path) -> BinaryIO:
    """Open a file for reading, decompressed."""
    with path.open("rb") as file:
        head = file.read(40)
    if head.startswith(b"version https://git-lfs"):
        raise CorpusError(f"{path} is a pointer of Git LFS, not the text: run `git lfs pull`")
    kinds = zip(MAGIC, UNPACK, strict=True)
    unpack = next((unpack for magic, unpack in kinds if head.startswith(magic)), None)
    if not unpack:
        return path.open("rb")
    if text_kind(path) in (".parquet", ".arrow"):  # these are not read from front to back
        return io.BytesIO(unpack(path).read())
    return io.BufferedReader(unpack(path))


def text_column(rows: Sequence[Row], language: str, where: object) -> str:
    """Return the column of the text: `text`, one named by its language, or the only with letters.

    Args:
        rows: the first ones.
        language: of the text.
        where: the file, for error messages.

    Raises:
        CorpusError: no column or several columns have letters.
    """
    if any("text" in row for row in rows):
        return "text"
    cells = [(name, own) for row in rows for name, own in row.items()]
    names, filled = {*chain(*rows)}, {n for n, v in cells if v and isinstance(v, str | int | float)}
    # `id` is also a code: of Indonesian, beside English, which is the text of no other language.
    others = {*NAMES} - {language if "en" in names else ""} | {"en"} - {language}
    plain = [(n, own) for n, own in cells if isinstance(own, str) and n not in others]
    found = {name for name, own in plain if LETTER.search(own)}
    said = {name for name, own in plain if _said([own])}
    # Other fields are named like languages, too, such as `to`: longer names are no codes.
    more = language not in said and any(len(name) > 3 for name in said)
    if language in names - others and (language not in filled or (language in found and not more)):
        return language
    sizes = {name: sum(len(own) for n, own in plain if n == name) for name in dict(plain)}
    pairs = columns_of(language, tuple(n for n in sizes if n != language))
    best = max((n for n in pairs if n in found), key=sizes.__getitem__, default="")
    # A title in two languages is not the text.
    rest = [sizes[name] for name in said - pairs.keys() - {*pairs.values()}]
    if best and 2 * sizes[best] >= max(rest, default=0):
        return best
    nested = [str(own) for _, own in cells if isinstance(own, list | dict)]
    longer = sum(map(len, nested)) > 3 * sum(len(own) for name, own in plain if name in found)
    # A title beside a list of paragraphs is not the text.
    coded = all(CODE.fullmatch(own) for name, own in plain if name in found)
    if len(found) != 1 or coded or (_said(nested) and (longer or not said)):
        raise _no_column("text", dict(cells), where)
    return found.pop()


def _no_column(name: str, row: Row, where: object) -> CorpusError:
    others = f"set corpus.text_field to one of {', '.join(map(str, row | flat(row)))}"
    remedy = brief(others) if row else "give rows with text"
    return CorpusError(f"{where} has no column '{name}': {remedy}")
