"""What several tests of graphs start from."""

from __future__ import annotations

import pytest


@pytest.fixture
def tf1(tensorflow):
    """TensorFlow 1 with control flow of Switch and Enter, in a graph and a session of its own."""
    v1 = tensorflow.compat.v1
    with tensorflow.Graph().as_default(), v1.Session() as session:
        v1.disable_control_flow_v2()
        v1.get_variable_scope().set_use_resource(False)
        session.v1 = v1
        yield session
    v1.enable_control_flow_v2()
