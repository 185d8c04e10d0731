"""The token file: a 128-byte header, then tokens as little-endian uint16 or uint32, to be memory-mapped.

====== ===== =========================================================
offset bytes field (integers little-endian)
====== ===== =========================================================
0      8     magic ``EXMTOK01``
8      4     header size in bytes, 128
12     4     bytes per token, 2 or 4
16     8     vocabulary: every token is below it
24     8     number of tokens
32     32    sha256 of the tokens' bytes
64     32    name of the tokenizer, ASCII, zero-padded
96     32    zero
====== ===== =========================================================

The file ends with its last token. The C engine reads the same form (`docs/reference/data.md`).
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from exactmap.errors import ExecutionFailedError, InvalidInputError, Place

__all__ = ["HEADER_BYTES", "MAGIC", "TokenFile", "TokenHeader", "TokenWriter", "open_tokens"]

MAGIC = b"EXMTOK01"
HEADER_BYTES = 128
_FIELDS = struct.Struct("<8sIIQQ32s32s32s")
_CHUNK_BYTES = 1 << 22
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")

Tokens = NDArray[np.uint16] | NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class TokenHeader:
    """What a token file says of itself.

    Parameters
    ----------
    token_bytes
        Bytes per token, 2 or 4.
    vocab
        Every token is below this number.
    num_tokens
        Tokens in the file.
    sha256
        Hex digest of the tokens' bytes.
    tokenizer
        Name of the tokenizer, at most 32 characters of ``a-z 0-9 . _ -``.
    """

    token_bytes: int
    vocab: int
    num_tokens: int
    sha256: str
    tokenizer: str

    def encode(self) -> bytes:
        """The 128 bytes of the header."""
        return _FIELDS.pack(
            MAGIC,
            HEADER_BYTES,
            self.token_bytes,
            self.vocab,
            self.num_tokens,
            bytes.fromhex(self.sha256),
            self.tokenizer.encode("ascii"),
            b"",
        )

    @classmethod
    def decode(cls, data: bytes, source: Path) -> TokenHeader:
        """Read the header from a file's first 128 bytes.

        Raises
        ------
        InvalidInputError
            If `data` is no header of this form; the message names the field.
        """

        def fail(field: str, got: object, expected: str) -> InvalidInputError:
            return InvalidInputError(
                "not a token file of this version",
                where=Place(source, field=field),
                got=str(got),
                expected=expected,
                hint="token files are written by `exactmap data`",
            )

        if len(data) < HEADER_BYTES:
            raise fail("header", f"{len(data)} bytes", f"{HEADER_BYTES} bytes")
        magic, size, token_bytes, vocab, num_tokens, digest, name, rest = _FIELDS.unpack(data[:HEADER_BYTES])
        if magic != MAGIC:
            raise fail("magic", magic, repr(MAGIC))
        if size != HEADER_BYTES:
            raise fail("header size", size, str(HEADER_BYTES))
        if token_bytes not in {2, 4}:
            raise fail("bytes per token", token_bytes, "2 or 4")
        if not 1 <= vocab <= min(1 << (8 * token_bytes), 1 << 31):
            raise fail("vocabulary", vocab, f"1 to {min(1 << (8 * token_bytes), 1 << 31)}")
        tokenizer = name.rstrip(b"\0").decode("ascii", "replace")
        if not _NAME.fullmatch(tokenizer):
            raise fail("tokenizer", repr(tokenizer), "a name of a-z 0-9 . _ -")
        if any(rest):
            raise fail("reserved bytes", rest.hex(), "zeros")
        return cls(token_bytes, vocab, num_tokens, digest.hex(), tokenizer)


@dataclass(frozen=True, slots=True)
class TokenFile:
    """A token file on disk: its header, and its tokens as a read-only memory map of shape (num_tokens,)."""

    path: Path
    header: TokenHeader
    tokens: Tokens

    def verify(self) -> None:
        """Compare the tokens with the header: their hash, and the vocabulary.

        Raises
        ------
        InvalidInputError
            If the hash differs, or a token is not below the vocabulary.
        """
        digest = hashlib.sha256(self.tokens.view(np.uint8).data).hexdigest()
        if digest != self.header.sha256:
            raise InvalidInputError(
                "the tokens are damaged",
                where=Place(self.path, field="sha256"),
                got=digest,
                expected=self.header.sha256,
                hint="write the file again with `exactmap data`",
            )
        largest = int(self.tokens.max(initial=0))
        if largest >= self.header.vocab:
            raise InvalidInputError(
                "a token is outside of the vocabulary",
                where=Place(self.path, field="tokens"),
                got=str(largest),
                expected=f"below {self.header.vocab}",
            )


def open_tokens(path: str | Path, *, verify: bool = False) -> TokenFile:
    """Map a token file.

    Parameters
    ----------
    path
        A file that `TokenWriter` wrote.
    verify
        Also read all tokens and compare their hash.

    Raises
    ------
    InvalidInputError
        If the file cannot be read, its header is wrong, its size does not fit, or (`verify`) its hash
        differs.
    """
    source = Path(path)
    try:
        with source.open("rb") as stream:
            header = TokenHeader.decode(stream.read(HEADER_BYTES), source)
            size = os.fstat(stream.fileno()).st_size
    except OSError as error:
        raise InvalidInputError(
            "cannot read the token file", where=str(source), got=error.strerror or str(error)
        ) from None
    expected = HEADER_BYTES + header.num_tokens * header.token_bytes
    if size != expected:
        raise InvalidInputError(
            "the token file is cut short or too long",
            where=str(source),
            got=f"{size} bytes",
            expected=f"{expected} bytes ({header.num_tokens} tokens)",
        )
    dtype = np.dtype("<u2" if header.token_bytes == 2 else "<u4")
    if header.num_tokens == 0:
        raise InvalidInputError("the token file holds no tokens", where=str(source))
    tokens = np.memmap(source, dtype=dtype, mode="r", offset=HEADER_BYTES, shape=(header.num_tokens,))
    opened = TokenFile(source, header, tokens)
    if verify:
        opened.verify()
    return opened


class TokenWriter:
    """Writes a token file piece by piece; it appears under its name only when it is complete.

    Parameters
    ----------
    path
        Where the file shall be; its folder must exist.
    token_bytes
        2 or 4.
    vocab
        Every token must be below this number.
    tokenizer
        Name for the header.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with TokenWriter(Path(folder) / "a.tok", 2, 259, "bytes") as writer:
    ...         writer.write(np.array([256, 104, 105, 257]))
    ...     open_tokens(Path(folder) / "a.tok", verify=True).tokens.tolist()
    [256, 104, 105, 257]
    """

    def __init__(self, path: str | Path, token_bytes: int, vocab: int, tokenizer: str) -> None:
        self.path = Path(path)
        self.header: TokenHeader | None = None  #: known once the file is closed
        self._token_bytes = token_bytes
        self._vocab = vocab
        self._tokenizer = tokenizer
        self._num_tokens = 0
        self._hash = hashlib.sha256()
        self._stream: BinaryIO | None = None
        self._temporary = ""
        # What cannot be read back is refused before a byte is written.
        TokenHeader.decode(TokenHeader(token_bytes, vocab, 0, "00" * 32, tokenizer).encode(), self.path)

    def __enter__(self) -> Self:
        """Open the temporary file beside the target."""
        try:
            descriptor, self._temporary = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)
            self._stream = os.fdopen(descriptor, "wb")
            self._stream.write(bytes(HEADER_BYTES))
        except OSError as error:
            raise self._failed(error) from None
        return self

    def write(self, tokens: NDArray[np.integer]) -> None:
        """Append tokens, an integer array of one dimension.

        Raises
        ------
        InvalidInputError
            If a token is negative or not below the vocabulary.
        """
        assert self._stream is not None, "write inside the `with` block"
        if tokens.size == 0:
            return
        low, high = int(tokens.min()), int(tokens.max())
        if low < 0 or high >= self._vocab:
            raise InvalidInputError(
                "a token is outside of the vocabulary",
                where=str(self.path),
                got=str(low if low < 0 else high),
                expected=f"0 to {self._vocab - 1}",
            )
        data = tokens.astype("<u2" if self._token_bytes == 2 else "<u4").tobytes()
        self._hash.update(data)
        self._num_tokens += tokens.size
        try:
            self._stream.write(data)
        except OSError as error:
            raise self._failed(error) from None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Fill in the header and rename; on an error remove what was written."""
        assert self._stream is not None
        try:
            if kind is None:
                header = TokenHeader(
                    self._token_bytes, self._vocab, self._num_tokens, self._hash.hexdigest(), self._tokenizer
                )
                self._stream.seek(0)
                self._stream.write(header.encode())
                self._stream.flush()
                os.fsync(self._stream.fileno())
                self._stream.close()
                Path(self._temporary).chmod(0o644)
                Path(self._temporary).replace(self.path)
                self.header = header
        except OSError as failure:
            raise self._failed(failure) from None
        finally:
            self._stream.close()
            Path(self._temporary).unlink(missing_ok=True)

    def _failed(self, error: OSError) -> ExecutionFailedError:
        return ExecutionFailedError(
            "cannot write the token file", where=str(self.path), got=error.strerror or str(error)
        )
