"""What the engine does about entries that the keeper has made and of which it does not hear; and what is left of shared trees."""

from mcastd.core.engine import SWEEPS_AFTER_LOSS
from mcastd.model.address import Family
from mcastd.model.route import Route
from mcastd.model.write import DeleteRoutes, PutRoutes, ReplaceRoutes, Restore, WriteOptions
from tests.fakerouter import Router, route, sg, template

ALICE = WriteOptions("alice")
TREE = template("239.1.0.1", "", "eth0", "eth1", shared_tree=True)


def ready(*routes: Route) -> Router:
    """A router with these routes in force, of which nothing was asked yet."""
    router = Router("eth0", "eth1", "eth2")
    router.write(PutRoutes(ALICE, list(routes)))
    router.settle()
    router.lines.clear()
    return router


def settled(router: Router) -> None:
    """The server is done before the keeper goes on."""
    router.settle()


def sweep(router: Router) -> None:
    """Look as often as it takes after a loss."""
    for _ in range(SWEEPS_AFTER_LOSS):
        router.sweep()
        router.settle()


def test_what_was_made_unheard_is_learned() -> None:
    router = ready(template("239.1.0.0/16", "", "eth0", "eth1"))
    router.packet(sg(1), "eth0")
    router.lose_record(0)
    sweep(router)
    router.write(PutRoutes(ALICE, [template("239.1.0.0/16", "", "eth0", "eth2")]))
    router.settle()
    assert router.packet(sg(1), "eth0") == ["eth2"]


def test_an_unheard_entry_of_a_route_that_waits_goes() -> None:
    router = ready(template("239.1.0.0/16", "", "eth0", "eth1"), route(sg(1), "later", "eth2"))
    router.packet(sg(1), "eth0")
    router.lose_record(0)
    sweep(router)
    assert router.kernel.entry(sg(1)) is None
    assert sg(1) not in router.engine.tables[0, Family.IPV4].learned


def test_an_unheard_entry_without_an_iif_goes() -> None:
    router = ready(template("239.1.0.0/16", "", "eth0", "eth1"))
    router.packet(sg(1), "eth0")
    router.lose_record(0)
    router.unlink("eth0")
    sweep(router)
    assert router.kernel.entry(sg(1)) is None


def test_a_route_that_was_overwritten_unheard_is_written_again() -> None:
    router = ready(template("239.1.0.0/16", "", "eth0", "eth1"))
    router.write(PutRoutes(ALICE, [route(sg(1), "eth0", "eth2")]))
    router.keeper.pause = lambda: settled(router)
    router.packet(sg(1), "eth0")
    router.keeper.pause = lambda: None
    assert router.packet(sg(1), "eth0") == ["eth1"], "the keeper was last"
    router.lose_record(0)
    router.settle()
    assert router.packet(sg(1), "eth0") == ["eth2"]


def test_no_number_is_used_again_before_all_is_known() -> None:
    """The unheard entry carries the bit of eth1's number; eth2 must not get it before the entry is found."""
    router = ready(template("239.1.0.0/16", "", "eth0", "eth1"))
    router.packet(sg(1), "eth0")
    router.lose_record(0)
    router.write(DeleteRoutes(ALICE, [template("239.1.0.0/16", "", "eth0").key]))
    router.write(PutRoutes(ALICE, [route(sg(9), "eth2")]))
    router.settle()
    assert router.packet(sg(1), "eth0") in ([], ["eth1"]), "never where eth2 is"
    assert router.vifs()[0] == "eth0"
    assert router.vifs()[1] == "eth1"
    sweep(router)
    assert router.kernel.entry(sg(1)) is None
    assert router.vifs() == {2: "eth2"}


def test_losses_of_a_table_that_is_not_open_are_nothing() -> None:
    router = ready()
    router.engine.records_lost(7, Family.IPV4)
    assert router.transcript() == []


def test_what_is_left_of_a_deleted_tree_is_not_learned() -> None:
    router = ready(TREE)
    router.write(ReplaceRoutes(ALICE, {one.key: one for one in [template("224.0.0.0/4", "", "eth0", "eth1")]}))
    router.boot()
    assert "v4 (0.0.0.0, 239.1.0.1) deleted" in router.transcript()
    assert not router.engine.tables[0, Family.IPV4].learned


def test_a_set_may_change_the_iif_of_a_tree_and_an_undo_changes_it_back() -> None:
    router = ready(TREE)
    moved = template("239.1.0.1", "", "eth2", "eth1", shared_tree=True)
    (outcome,) = router.write(ReplaceRoutes(ALICE, {moved.key: moved}))
    assert (outcome.created, outcome.deleted, outcome.refused) == (1, 1, 0)
    router.settle()
    assert router.packet(sg(1), "eth2") == ["eth1"]
    (outcome,) = router.write(Restore(ALICE, [TREE.copy()], [moved.key]))
    assert (outcome.created, outcome.deleted, outcome.refused) == (1, 1, 0)
    router.settle()
    assert router.packet(sg(1), "eth0") == ["eth1"]
    assert router.packet(sg(1), "eth2") == []
