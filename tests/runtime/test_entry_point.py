import io
import sys

import pytest

from avrecog.errors import ConfigError
from avrecog.runtime.entry_point import entry_point


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_that_cannot_show_a_character_gets_it_escaped(monkeypatch, encoding):
    streams = {
        name: io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict") for name in ("stdout", "stderr")
    }
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)

    @entry_point
    def main():
        sys.stdout.write("caf\xe9 \u97f3 \udce9\n")
        raise ConfigError("caf\xe9 \u97f3 \udce9")

    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    said = []
    for stream in streams.values():
        stream.flush()
        said.append(stream.buffer.getvalue().decode(encoding))
    shown = {"ascii": r"caf\xe9 \u97f3 \udce9", "latin-1": "caf\xe9 \\u97f3 \\udce9", "utf-8": "caf\xe9 \u97f3 \\udce9"}
    assert said == [f"{shown[encoding]}\n", f"error: {shown[encoding]}\n"]
