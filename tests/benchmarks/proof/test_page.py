"""The page of a proof: self-contained, and with every row in it."""

from __future__ import annotations

import html
import re
from pathlib import Path

from motorvae.benchmarks.proof.cli import main
from motorvae.benchmarks.proof.page import save_page, words_of
from motorvae.benchmarks.proof.record import Proof
from motorvae.runtime.core.documents import save_document


def test_every_row_is_on_the_page_with_its_reason(proof: Proof, tmp_path: Path) -> None:
    save_page(tmp_path / "proof.html", proof)
    text = (tmp_path / "proof.html").read_text("utf-8")
    for step in proof.steps:
        assert f"{step.name}: {step.proves}" in text
        for row in step.rows:
            what = row.what if row.what != step.proves else "the step"
            said = html.escape(f"{row.reason or ''}{row.note or ''}")
            assert (
                f'<tr><td><span class="status {row.status}">{row.status}</span></td>\n'
                f"<td>{what}</td>\n<td>{said}\n"
            ) in text
    assert "2 of 9 tests failed &lt;&amp;&gt;" in text
    assert "wall p50 1.23 ms" in text
    assert "commit abababababab" in text
    assert re.findall(r"\d+ (?:proven|failed|unproven)<", text) == [
        "1 proven<",
        "1 failed<",
        "2 unproven<",
    ]


def test_facts_of_the_gpu_and_of_the_machine_do_not_hide_each_other(
    proof: Proof, tmp_path: Path
) -> None:
    save_page(tmp_path / "proof.html", proof)
    text = (tmp_path / "proof.html").read_text("utf-8")
    facts = dict(re.findall(r"<tr><td>([^<]+)</td><td>([^<]+)</td></tr>", text))
    assert facts["GPU machine"] == "A board of a test"
    assert facts["machine"] == "x86_64"
    assert facts["GPU memory_bytes"] == f"{24 << 30}"
    assert facts["memory_bytes"] == f"{32 << 30}"


def test_the_page_asks_nothing_of_the_network_and_fits_a_phone(
    proof: Proof, tmp_path: Path
) -> None:
    save_page(tmp_path / "proof.html", proof)
    text = (tmp_path / "proof.html").read_text("utf-8")
    assert re.findall(r'(?:src|href)="(?!data:)', text) == []
    assert "default-src 'none'" in text
    assert '<meta name="viewport" content="width=device-width' in text
    assert "@media (max-width: 40rem)" in text


def test_a_machine_without_a_gpu_says_so_first(proof: Proof, tmp_path: Path) -> None:
    content = proof.model_dump()
    content["machine"]["no_gpu"] = "no NVIDIA driver"
    content["steps"] = content["steps"][2:]
    save_page(tmp_path / "proof.html", Proof.model_validate(content))
    text = (tmp_path / "proof.html").read_text("utf-8")
    assert "<h1>motorVAE on a GPU: no GPU</h1>" in text
    assert "Nothing is proven here: no NVIDIA driver." in text


def test_figures_are_read_with_their_units() -> None:
    assert words_of("h2d_p50_ms", 0.01234) == "h2d p50 0.0123 ms"
    assert words_of("best_gb_per_s", 3456.7) == "best 3457 GB/s"
    assert words_of("train_images_per_s", 12345.6) == "train 12346 images/s"
    assert words_of("frames_per_s", 59.94) == "frames 59.9 /s"
    assert words_of("latents", 500.0) == "latents 500"


def test_a_page_can_be_drawn_of_a_json_that_was_brought(proof: Proof, tmp_path: Path) -> None:
    save_document(tmp_path / "proof.json", proof)
    args = [str(tmp_path / "proof.json"), "--output", str(tmp_path / "page.html")]
    assert main(["page", *args]) == 0
    assert "A GPU of a test" in (tmp_path / "page.html").read_text("utf-8")
