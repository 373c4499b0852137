"""Hosts on one machine are joined by links that can be cut; test_flink_hosts.py has a cluster on them."""

import os
import sys

import pytest
from support.required import missing

from deploy.flink.compare import NO_FLINK
from deploy.flink.hosts import Network, main, missing_for_network
from deploy.flink.processes import ProcessGroup, is_listening, wait_until


@pytest.mark.heavy
def test_links_can_be_cut_and_mended(tmp_path):
    if lacking := missing_for_network():
        missing("hosts", lacking)
    with ProcessGroup() as group:
        network = Network(group)
        host, other = network.host("one"), network.host("other")
        server = [sys.executable, "-m", "http.server", "8000", "--bind", host.bind]
        group.start([*host.enter, *server], tmp_path / "log", directory=tmp_path)
        address = f"{host.address}:8000"
        assert wait_until(lambda: is_listening(address), 60)
        ask = f"import urllib.request as r; r.urlopen('http://{address}', timeout=60)"
        assert group.start([*other.enter, sys.executable, "-c", ask]).wait() == 0
        network.cut(host)
        assert not is_listening(address)
        network.mend(host)
        assert wait_until(lambda: is_listening(address), 60)
        network.slow(host, kbit=1000)
        assert wait_until(lambda: is_listening(address), 60)
        network.unslow(host)
    assert not is_listening(address)


def test_a_user_who_may_not_make_hosts_is_told(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main([f"--input={tmp_path}/pairs.parquet"]) == NO_FLINK
    assert capsys.readouterr().err == (
        "error: hosts are network namespaces, which only root can make, on Linux; run it as root\n"
    )
