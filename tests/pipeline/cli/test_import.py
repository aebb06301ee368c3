"""`import`: from a file to a file."""

import io

from sluiceway.pipeline.cli import import_
from sluiceway.pipeline.cli.exits import Exit

CLIENT = '{"mcpServers": {"s": {"command": "x", "env": {"TOKEN": "abc"}, "autoApprove": ["y"]}}}'


def test_the_result_passes_check(sluiceway, write):
    """YAML on stdout or in the file; what is lost and what is to be set on stderr."""
    source = write("client.json", CLIENT)
    printed, written = sluiceway("import", source), sluiceway("import", source, "-o", "out.yaml")

    assert (Exit.OK, Exit.OK, "") == (printed.code, written.code, written.out)
    assert printed.out == source.with_name("out.yaml").read_text()
    assert "  not carried over: s.autoApprove: " in printed.err
    assert "  set TOKEN: " in printed.err
    assert "1 server; 1 not carried over" in printed.err
    assert "abc" not in printed.out + printed.err
    assert sluiceway("check", "out.yaml").code == Exit.OK


def test_a_file_is_never_overwritten(sluiceway, write):
    """Not even by what would be the same."""
    source = write("client.json", CLIENT)
    outcome = sluiceway("import", source, "-o", source)

    assert (Exit.USAGE, CLIENT) == (outcome.code, source.read_text())


def test_a_folder_that_does_not_exist_is_exit_code_2(sluiceway, write):
    """It is not made."""
    outcome = sluiceway("import", write("client.json", CLIENT), "-o", "gone/out.yaml")

    assert (Exit.USAGE, True) == (outcome.code, "cannot be written: No such file" in outcome.err)


def test_a_command_line_may_come_from_standard_input(sluiceway, write, monkeypatch):
    """Files that it names are found."""
    write("n.json", '{"mcpServers": {"c": {"url": "https://c.example/mcp"}}}')
    monkeypatch.setattr("sys.stdin", io.StringIO("mcp-proxy --named-server-config n.json"))
    outcome = sluiceway("import", "-", "--from", "mcp-proxy")

    assert outcome.code == Exit.OK
    assert "# Imported from standard input." in outcome.out
    assert "https://c.example/mcp" in outcome.out


def test_a_named_file_is_found_beside_the_script(sluiceway, write):
    """Wherever the command runs."""
    write("deep/n.json", '{"mcpServers": {"c": {"command": "c"}}}')
    outcome = sluiceway("import", write("deep/start.sh", "mcp-proxy --named-server-config n.json\n"))

    assert "command: [c]" in outcome.out


def test_what_cannot_be_imported_is_exit_code_1(sluiceway, write):
    """With the reason, and nothing on stdout."""
    outcome = sluiceway("import", write("client.json", "{}"))

    assert (Exit.FOUND, "") == (outcome.code, outcome.out)
    assert "client.json cannot be imported: there is no mcpServers" in outcome.err


def test_what_cannot_be_read_is_exit_code_2(sluiceway, write, monkeypatch):
    """Gone, too large, or no text."""
    monkeypatch.setattr(import_, "MAX_BYTES", 8)
    (source := write("client.json", "")).write_bytes(b"\xff")

    assert "No such file" in sluiceway("import", "gone.json").err
    assert "utf-8" in sluiceway("import", source).err
    assert "it has more than 0 MiB" in sluiceway("import", write("long.json", " " * 9)).err
    assert Exit.USAGE == sluiceway("import", "gone.json").code
