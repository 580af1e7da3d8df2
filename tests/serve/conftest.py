import pytest
from served_models import Client, kuairand_run, made, table_run


@pytest.fixture(scope="session")
def kuairand_trained(tmp_path_factory):
    return kuairand_run(tmp_path_factory.mktemp("kuairand"))


@pytest.fixture(scope="session")
def table_trained(tmp_path_factory):
    return table_run(tmp_path_factory.mktemp("table"))


@pytest.fixture(scope="session")
def kuairand(kuairand_trained, tmp_path_factory):
    """An export that looks users and videos up."""
    return made(kuairand_trained, tmp_path_factory.mktemp("exports") / "kuairand", name="kuairand")


@pytest.fixture(scope="session")
def table(table_trained, tmp_path_factory):
    """An export of a table."""
    return made(table_trained, tmp_path_factory.mktemp("exports") / "table", name="table")


@pytest.fixture
def client(kuairand, table):
    """Both exports, in this process."""
    return Client(kuairand, table)
