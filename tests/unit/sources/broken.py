"""Broken configurations by hand: the text, then line, key and some words of its first fault."""

GOOD = """\
include = []
[daemon]
idle_timeout = 30

[[table]]
number = 100
rules = [{ iif = "eth2", priority = 7 }]

[interface.eth0]
pinned = true

[[route]]
group = "239.1.1.1"
source = "10.0.0.1"
iif = "eth0"
oifs = ["eth1", { interface = "eth2", ttl_threshold = 3 }]

[[join]]
interface = "eth0"
group = "232.1.1.1"
"""

EXACT = '[[route]]\ngroup = "239.1.1.2"\nsource = "10.0.0.1"\niif = "eth0"\n'

BROKEN: dict[str, tuple[str, int, str, str]] = {
    "no value": ("[daemon]\nuser =\n", 2, "daemon.user", "not TOML"),
    "an open string": ('[daemon]\nuser = "x\n', 2, "daemon.user", "not TOML"),
    "an open array": ("x = 1\n[daemon]\ntables = [1,\n", 4, "daemon.tables 1", "not TOML"),
    "an open header": ("[daemon\n", 1, "", "not TOML"),
    "a key twice": ('[daemon]\nuser = "a"\nuser = "b"\n', 3, "daemon.user", "Cannot overwrite"),
    "a table twice": ("[daemon]\n[interface]\n[daemon]\n", 3, "interface", "Cannot declare"),
    "an address without quotes": ("[[route]]\ngroup = 239.1.1.1\n", 2, "route 1.group", "not TOML"),
    "two on a line": ("[daemon] user = 1\n", 1, "daemon.user", "not TOML"),
    "a date that is none": ("[daemon]\nuser = 2020-13-01\n", 2, "daemon.user", "not TOML"),
    "a number without end": (f"[daemon]\nidle_timeout = {'9' * 5000}\n", 2, "daemon.idle_timeout", "thousands of digits"),
    "a number beyond TOML's": (f"[daemon]\nidle_timeout = 0x{'f' * 5000}\n", 2, "daemon.idle_timeout", "64 bits"),
    "a number beyond a float": (
        f'[[route]]\ngroup="239.1.1.1"\nidle_timeout={"9" * 400}\n',
        3,
        "route 1.idle_timeout",
        "64 bits",
    ),
    "a number in an unknown list": (f"x = [\n0x{'f' * 5000}]\n", 2, "x 1", "64 bits"),
    "nesting": ("x = " + "[" * 50_000, 0, "", "nested too deeply"),
    "nesting by dots": (".".join(["x"] * 5000) + " = 1", 0, "", "nested too deeply"),
    "an unknown section": ("[demon]\n", 1, "demon", "the keys here are include, daemon"),
    "an unknown key": ("[daemon]\nstate = 1\n", 2, "daemon.state", "state_dir"),
    "a number for text": ("[daemon]\nuser = 1\n", 2, "daemon.user", "it must be a string"),
    "a section that is a number": ("daemon = 1\n", 1, "daemon", "it must be a table"),
    "routes that are no list": ('[route]\ngroup = "239.1.1.1"\n', 1, "route", "it must be a list"),
    "a route that is none": ("route = [\n3]\n", 2, "route 1", "[[route]]"),
    "a join that is none": ("join = [\n\n'x']\n", 3, "join 1", "[[join]]"),
    "a limit": ("[daemon]\n\nroutes_max = 0\n", 3, "daemon.routes_max", "choose 1 to"),
    "a policy": ('[daemon]\nunrouted = "drop"\n', 2, "daemon.unrouted", "stop"),
    "metrics that are none": ("metrics = 4\n", 1, "metrics", "a table"),
    "a table without number": ('[[table]]\nunrouted = "stop"\n', 1, "table 1.number", "is missing"),
    "a negative table": ("[[table]]\nnumber = 1\n[[table]]\nnumber = -1\n", 4, "table 2.number", "0 to 999999999"),
    "a table described twice": ("[[table]]\nnumber = 1\n[[table]]\nnumber = 1\n", 4, "table 2.number", "mcastd.toml:1 already"),
    "a default table's own number": ("[[table]]\nnumber = 254\n", 2, "table 1.number", "write 0"),
    "a table's policy": ("[[table]]\nnumber = 1\nunrouted = 'x'\n", 3, "table 1.unrouted", "ignore"),
    "a rule that is text": ("[[table]]\nnumber = 1\nrules = [\n'x']\n", 4, "table 1.rules 1", "{iif = NAME"),
    "a rule without iif": ("[[table]]\nnumber = 1\nrules = [{priority = 1}]\n", 3, "table 1.rules 1.iif", "is missing"),
    "a rule without priority": ("[[table]]\nnumber = 1\nrules = [{iif = 'a'}]\n", 3, "table 1.rules 1.priority", "is missing"),
    "a rule's pattern": ("[[table]]\nnumber = 1\nrules = [{iif='e*',priority=1}]\n", 3, "table 1.rules 1.iif", "is a pattern"),
    "a rule's priority": ("[[table]]\nnumber=1\nrules=[{iif='a',priority=0}]\n", 3, "table 1.rules 1.priority", "1 to 32765"),
    "a rule's family": (
        "[[table]]\nnumber=1\nrules=[{iif='a',priority=1,family='x'}]\n",
        3,
        "table 1.rules 1.family",
        "ipv4, ipv6, both",
    ),
    "a rule of the default table": ("[[table]]\nnumber=0\nrules=[{iif='a',priority=1}]\n", 3, "table 1.rules 1", "default table"),
    "a rule twice": (
        "[[table]]\nnumber=1\nrules=[{iif='a',priority=1},\n{iif='a',priority=1,family='ipv6'}]\n",
        4,
        "table 1.rules 2",
        "mcastd.toml:3 says",
    ),
    "an interface that is text": ("[interface]\neth0 = 'x'\n", 2, "interface.eth0", "[interface.eth0]"),
    "an interface's name": ('[interface."eth 0"]\n', 1, 'interface."eth 0"', "no interface name has"),
    "an interface's pattern": ('[interface."eth*"]\n', 1, 'interface."eth*"', "name one interface"),
    "a long interface's name": (f"[interface.{'x' * 16}]\n", 1, f"interface.{'x' * 16}", "15 bytes"),
    "an interface's key": ("[interface.eth0]\npin = true\n", 2, "interface.eth0.pin", "pinned"),
    "an interface's threshold": ("[interface.eth0]\nttl_threshold = 255\n", 2, "interface.eth0.ttl_threshold", "1 to 254"),
    "an interface's pin": ("[interface.eth0]\npinned = 'x'\n", 2, "interface.eth0.pinned", "true, false or a list"),
    "a pin's table": ("[interface.eth0]\npinned = [0,\n-1]\n", 3, "interface.eth0.pinned 2", "0 to 999999999"),
    "discovery": ("[interface.eth0]\nrouter_discovery = 1\n", 2, "interface.eth0.router_discovery", "true or false"),
    "no group": ('[[route]]\niif = "a"\n', 1, "route 1.group", "is empty"),
    "a group that is none": ('[[route]]\ngroup = "10.1.1.1"\n', 2, "route 1.group", "no multicast address"),
    "a link-local group": ('[[route]]\ngroup = "ff02::1"\n', 2, "route 1.group", "link-local"),
    "group bits": ('[[route]]\ngroup = "239.1.1.1/16"\n', 2, "route 1.group", "239.1.0.0/16"),
    "a source that is none": ('[[route]]\ngroup="239.1.1.1"\nsource="x"\n', 3, "route 1.source", "no IPv4 or IPv6 address"),
    "two families": ('[[route]]\ngroup="239.1.1.1"\nsource="fd00::1"\n', 3, "route 1.source", "another family"),
    "a sender that never is": (EXACT.replace("10.0.0.1", "127.0.0.1"), 3, "route 1.source", "no address that a packet"),
    "no iif": (EXACT.replace('iif = "eth0"\n', ""), 1, "route 1.iif", "is empty"),
    "an iif pattern": (EXACT.replace('"eth0"', '"e*"'), 4, "route 1.iif", "exact (S,G) needs one"),
    "an oif number": (EXACT + "oifs = ['a',\n 3]\n", 6, "route 1.oifs 2", "an interface's name"),
    "an oif key": (EXACT + "oifs = [{name = 'a'}]\n", 5, "route 1.oifs 1.name", "interface, ttl_threshold"),
    "an oif without name": (EXACT + "oifs = [{ttl_threshold = 1}]\n", 5, "route 1.oifs 1.interface", "is empty"),
    "an oif threshold": (EXACT + "oifs = [\n{interface='a',ttl_threshold=255}]\n", 6, "route 1.oifs 1.ttl_threshold", "1 to 254"),
    "a negative threshold": (
        EXACT + "oifs = [{interface='a',ttl_threshold=-1}]\n",
        5,
        "route 1.oifs 1.ttl_threshold",
        "0 or more",
    ),
    "named and excluded": (EXACT + 'oifs = ["a",\n"!a"]\n', 6, "route 1.oifs 2.interface", "both named and excluded"),
    "a cookie": (EXACT + f'cookie = "{"x" * 65}"\n', 5, "route 1.cookie", "64 bytes"),
    "a route's table": (EXACT + "table = -1\n", 5, "route 1.table", "0 up"),
    "a large table": (EXACT + "table = 1000000000\n", 5, "route 1.table", "too large"),
    "a wildcard": ('[[route]]\ngroup="239.1.1.1"\nwildcard="tree"\n', 3, "route 1.wildcard", "template or shared-tree"),
    "a tree without iif": ('[[route]]\ngroup="239.1.1.1"\nwildcard="shared-tree"\n', 1, "route 1.iif", "one iif by name"),
    "an idle time of an exact one": (EXACT + 'idle_timeout = "9s"\n', 5, "route 1.idle_timeout", "is for templates"),
    "an idle time": ('[[route]]\ngroup="239.1.1.1"\nidle_timeout="soon"\n', 3, "route 1.idle_timeout", '"90s"'),
    "a long idle time": ('[[route]]\ngroup="239.1.1.1"\nidle_timeout=86401\n', 3, "route 1.idle_timeout", "1s to 86400s"),
    "an idle time of truth": ('[[route]]\ngroup="239.1.1.1"\nidle_timeout=true\n', 3, "route 1.idle_timeout", '"90s"'),
    "a join anywhere": ('[[route]]\ngroup="239.1.1.1"\njoin=true\n', 1, "route 1.iif", "to join on"),
    "too many at once": ('[[route]]\ngroup="239.0.0.0/8"\niif="a"\njoin=true\n', 2, "route 1.group", "more than 4096"),
    "a route twice": (EXACT + "\n" + EXACT, 6, "route 2", "mcastd.toml:1 says"),
    "a join without interface": ('[[join]]\ngroup = "239.1.1.1"\n', 1, "join 1.interface", "is empty"),
    "a join's group": ('[[join]]\ninterface="a"\ngroup = "1.1.1.1"\n', 3, "join 1.group", "no multicast address"),
    "a join's prefix": ('[[join]]\ninterface="a"\ngroup = "239.0.0.0/16"\n', 3, "join 1.group", "more than 4096"),
    "a join's key": ('[[join]]\niif="a"\n', 2, "join 1.iif", "interface, group, source, cookie"),
    "an include that is a number": ("include = [3]\n", 1, "include 1", "it must be a string"),
    "an include that is text": ("include = 'x'\n", 1, "include", "it must be a list"),
    "a missing include": ("include = ['a*.toml',\n'gone.toml']\n", 0, "", "can't be read"),
    "a pattern of any depth": ("include = [\n'**/*.toml']\n", 2, "include 1", "** is no pattern here"),
    "an include of itself": ("include = [\n'mcastd.toml']\n", 2, "include 1", "it is read already"),
}
