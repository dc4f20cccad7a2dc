"""docs/explore.ipynb: it runs from its first cell to its last, and is kept without outputs."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

NOTEBOOK = Path(__file__).parents[2] / "docs" / "explore.ipynb"
ABSOLUTE = re.compile(r"(?<![\w.:/])(/(?:home|Users|tmp|root|work|mnt|var)\b|[A-Z]:\\)")


class OwnKernelManager(AsyncKernelManager):
    """Starts kernels of this interpreter, and not one of that name that is installed elsewhere."""

    def _kernel_spec_manager_default(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a kernel works; what Jupyter and IPython keep goes there as well."""
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("MOTORVAE_OUTPUT", str(tmp_path / "explore"))
    return tmp_path


def executed(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """Run all cells by a kernel of this interpreter, and raise for the first that fails."""
    client = NotebookClient(
        notebook,
        kernel_manager_class=OwnKernelManager,
        timeout=300,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    return notebook


def test_the_notebook_is_kept_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert 10 <= len(notebook.cells) <= 15
    assert [cell.id for cell in code if cell.outputs or cell.execution_count is not None] == []
    assert ABSOLUTE.findall(NOTEBOOK.read_text(encoding="utf-8")) == []
    assert set(notebook.metadata) == {"kernelspec", "language_info"}


def test_absolute_paths_are_recognised() -> None:
    texts = ("/home/run", '"/root/a"', "C:\\run", "a/home")
    found = [bool(ABSOLUTE.search(text)) for text in texts]
    assert found == [True, True, True, False]


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_the_notebook_runs(tiny_run: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTORVAE_MODEL", str(tiny_run))
    notebook = executed(nbformat.read(NOTEBOOK, as_version=4), folder)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = [one for cell in code for one in cell.outputs if one.output_type == "execute_result"]
    assert [cell.execution_count for cell in code] == [*range(1, len(code) + 1)]
    assert len(shown) == 4
    assert all("image/png" in one.data for one in shown)


def test_a_cell_that_fails_is_an_error(folder: Path) -> None:
    cells = [nbformat.v4.new_code_cell("1 + 1"), nbformat.v4.new_code_cell("1 / 0")]
    with pytest.raises(CellExecutionError, match="division by zero"):
        executed(nbformat.v4.new_notebook(cells=cells), folder)
