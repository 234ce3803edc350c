"""What a log tells."""

from __future__ import annotations

from pathlib import Path

from clara_wf.trtis.log import Progress, last_words, remedy_for, tail

HEAD = """\
W1126 07:04:52.406143 2761 pinned_memory_manager.cc:273] "Unable to allocate pinned system memory"
E1126 07:04:52.406645 2761 server.cc:241] "CudaDriverHelper has not been initialized."
"""


def test_the_last_fault_is_told_without_place_and_time(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text(
        HEAD + 'E1126 07:04:53.000000 2761 main.cc:1] "Socket is in use"\nI1126 07:04:54.0 1 x.cc:1] "bye"\n'
    )
    assert last_words(log) == "Socket is in use"
    log.write_text(HEAD + "error: creating server: Internal - no memory\n")
    assert last_words(log) == "error: creating server: Internal - no memory"
    log.write_text("")
    assert last_words(log) == "its log is empty"
    assert tail(log, 5) == tail(tmp_path / "none", 5) == []


def test_progress_is_told_line_by_line(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    said: list[str] = []
    log.write_text(HEAD + 'I1126 07:04:52.409313 2761 model_lifecycle.cc:472] "loading: liver:1"\nI1126 half')
    progress = Progress(log, said.append)
    progress.tell()
    assert said == []
    with log.open("a") as file:
        file.write(" a line\nI1126 07:04:54.1 2761 model_lifecycle.cc:839] \"successfully loaded 'liver'\"\n")
    progress.tell()
    progress.tell()
    assert said == ["the model liver is served"]


def test_what_the_server_says_of_its_memory_has_a_remedy():
    text = "Unable to initialize shared memory key 'x' to requested size (1 bytes). Error: No space left on device"
    assert "/dev/shm larger" in remedy_for(text)
    assert remedy_for("no such layer") is None
