"""Stage report refuses what it can't put into the table."""

import pytest
from ruamel.yaml import YAML

import projects


@pytest.mark.parametrize("change", [{"backbone": None}, {"inputs": 3}])
def test_a_configuration_without_what_report_reads_is_refused(project, change, capsys):
    path = project / "models/audio/config.yaml"
    content = YAML(typ="safe").load(path.read_text()) | change
    YAML(typ="safe").dump(content, path)
    table = (project / "results/ZOO.md").read_bytes()
    with projects.inside(project), pytest.raises(SystemExit):
        projects.run(project, "report")
    assert "config.yaml: expected `backbone`, a name, and `inputs`, a list of sections" in capsys.readouterr().err
    assert (project / "results/ZOO.md").read_bytes() == table
