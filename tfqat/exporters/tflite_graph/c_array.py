"""C array: a TFLite file as C source and header, for microcontrollers without a file system.

TFLite Micro reads the model in place, so the array is aligned to 16 bytes, as the format wants its buffers.
Source: TensorFlow Lite for Microcontrollers, "Convert to a C array".
"""

from __future__ import annotations

import re
from pathlib import Path

from tfqat.core.files import write_text

NAME, PER_LINE, ALIGNMENT = "model_data", 12, 16

_HEADER = """\
/* {what}. */
#ifndef {guard}
#define {guard}

#ifdef __cplusplus
extern "C" {{
#endif

/* Aligned to {alignment} bytes. */
extern const unsigned char {name}[];
extern const unsigned int {name}_len;

#ifdef __cplusplus
}}
#endif

#endif /* {guard} */
"""

_SOURCE = """\
/* {what}. */
#include "{header}"

#if defined(__GNUC__) || defined(__clang__)
#define {guard}_ALIGNED __attribute__((aligned({alignment})))
#elif defined(_MSC_VER)
#define {guard}_ALIGNED __declspec(align({alignment}))
#elif defined(__ICCARM__) || defined(__CC_ARM)
#define {guard}_ALIGNED __attribute__((aligned({alignment})))
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define {guard}_ALIGNED _Alignas({alignment})
#else
#error "Say how this compiler aligns an array to {alignment} bytes."
#endif

{guard}_ALIGNED const unsigned char {name}[] = {{
{rows}
}};
const unsigned int {name}_len = {length}u;
"""


def write(folder: Path, data: bytes, source: str, header: str) -> None:
    """Writes ``data`` as the array ``model_data``, its length as ``model_data_len``, into two files of ``folder``."""
    told = {
        "what": f"A TFLite model of {len(data)} bytes, written by tfqat",
        "name": NAME,
        "guard": f"TFQAT_{NAME.upper()}",
        "alignment": ALIGNMENT,
        "header": header,
        "length": len(data),
    }
    write_text(folder / header, _HEADER.format(**told))
    write_text(folder / source, _SOURCE.format(**told, rows=rows(data)))


def read(source: Path) -> bytes:
    """The bytes in an array that :func:`write` wrote."""
    text = source.read_text(encoding="utf-8")
    return bytes(int(word, 16) for word in re.findall(r"0x[0-9a-f]{2}(?=,)", text))


def rows(data: bytes) -> str:
    """The bytes as C literals, PER_LINE a line."""
    words = [f"0x{value:02x}," for value in range(256)]
    lines = (data[start : start + PER_LINE] for start in range(0, len(data), PER_LINE))
    return "\n".join("    " + " ".join([words[value] for value in line]) for line in lines)
