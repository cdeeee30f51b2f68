//! What every word means, beside the word itself.

use crate::words::{self as w, Word};

/// A node, its meaning, and each of its properties with its meaning in the order of the table.
type Entry = (&'static Word, &'static str, &'static [(&'static str, &'static str)]);

/// The meaning of a node and of its properties; empty if nobody wrote it down.
pub(super) fn of(word: &Word) -> (&'static str, &'static [(&'static str, &'static str)]) {
    let entry = ALL.iter().find(|(known, ..)| std::ptr::eq(*known, word));
    entry.map_or(("", &[]), |(_, meaning, properties)| (meaning, properties))
}

const BAND: &[(&str, &str)] =
    &[("enter", "good from here on"), ("leave", "bad from here on; there is room between the two")];

const MATCH: &[(&str, &str)] = &[
    ("proto", "protocol by name or number: `tcp`, `\"udp,132\"`"),
    ("src", "source prefixes or `@group`"),
    ("dst", "destination prefixes or `@group`"),
    ("sport", "source ports and ranges, `\"5060,10000-20000\"`, or `@group`"),
    ("dport", "destination ports and ranges, or `@group`"),
    ("dscp", "code points by name or number: `ef`, `\"0,af41\"`"),
    ("in", "interfaces by which packets enter, `local` for sockets of this machine, or `@group`"),
    ("flow-label", "IPv6 flow labels, 0 to 1048575, and ranges"),
    ("spi", "security parameter indices of ESP and AH, and ranges"),
    ("icmp-type", "ICMP types by name or number; needs `proto=icmpv6` or `proto=icmp`"),
    ("uid", "users of local sockets by number, and ranges; never of forwarded packets"),
];

const FLOW: &[(&str, &str)] = &[
    ("proto", "its protocol; obligatory"),
    ("src", "its source address, inside a home network; obligatory"),
    ("dst", "its destination address; obligatory"),
    ("sport", "its source port"),
    ("dport", "its destination port"),
    ("dscp", "its code point; `0` if left out"),
    ("in", "where it enters; as usual for its source if left out"),
    ("flow-label", "its flow label; `0` if left out"),
    ("spi", "its security parameter index"),
    ("icmp-type", "its ICMP type"),
    ("uid", "the user of its local socket"),
];

#[rustfmt::skip]
pub(super) const ALL: &[Entry] = &[
    (&w::POLICY, "The name of the policy, for people.", &[("schema", "the version of the language: `1`")]),
    (&w::INCLUDE, "Reads other files at this place; names are relative to this file, `*` stands for any characters of a name.",
        &[("optional", "`#true` if there need not be such a file")]),
    (&w::ROLE, "What this node does: `mobile-node`, `mobile-router`, `home-agent` or `correspondent`.", &[]),

    (&w::INTERFACE, "An access link, by the kernel's name for it.", &[]),
    (&w::CLASS, "What kind of link it is, for people: `wlan`, `cellular`.", &[]),
    (&w::BID, "The binding identification number it registers with (RFC 5648); the lowest free one, in the order of the file, if left out: write it down where interfaces come and go, for it is what the agent knows the link by.", &[]),
    (&w::PRIORITY, "Its BID-PRI, 1 to 127; lower is preferred where no rule decides. `64` if left out.", &[]),
    (&w::METERED, "Whether its octets cost money; flows on it go back to a better link at least in a gap.", &[]),
    (&w::COST, "The price of an amount of data, a number; what `cheapest` compares.",
        &[("currency", "three letters; obligatory"), ("per", "the amount; `\"1GB\"` if left out"),
          ("roaming", "the price while its modem is known to roam; the same price if left out")]),
    (&w::QUOTA, "How much it may carry in a period, both directions, outer headers included.",
        &[("per", "`day`, `week` or `month`; `month` if left out"), ("starts", "the day on which a period starts, from 1"),
          ("warn", "the share at which a warning is due; `\"80%\"` if left out"),
          ("at-limit", "`last-resort`: the last choice of every rule; `stop`: not used any more. `last-resort` if left out")]),
    (&w::RATE, "Its rate in the smaller direction, such as `\"50Mbit/s\"`; what `overflow` measures load against.", &[]),
    (&w::USABLE, "What makes it good enough, and for how long it has to be.", &[]),
    (&w::SIGNAL, "Signal strength, such as `\"-70dBm\"`; more is better.", BAND),
    (&w::RTT, "Smoothed round trip time; less is better.", BAND),
    (&w::JITTER, "Jitter; less is better.", BAND),
    (&w::LOSS, "Loss in percent; less is better.", BAND),
    (&w::SPEED, "Speed of the vehicle, such as `\"60km/h\"`; less is better. Not known, it does not count.", BAND),
    (&w::NEAR, "How far the vehicle is from this position, degrees north and east, such as `\"48.137154,11.576124\"`; less is better. Not known, it does not count.", BAND),
    (&w::ROAMING, "Whether it may be used while its modem is with another's network; `#true` if left out. With `#false` a link that is known to roam carries nothing but its registration, not even as the last link, and is held back as `hold up` says when it is home.", &[]),
    (&w::TECHNOLOGY, "The access technologies by which it is good enough: `gsm`, `cdma`, `umts`, `lte`, `lte-m`, `nb-iot`, `nr`. By another it is used only as the last link.", &[]),
    (&w::HOLD, "How long a change has to last.",
        &[("up", "how long a link that was bad has to be good before it is used again; doubled by each relapse within 10 min, at most 10 min; `\"30s\"` if left out"),
          ("down", "how long a limit has to be exceeded; `\"0s\"` if left out. Events (carrier, address, binding) do not wait")]),

    (&w::RADIO, "Who tells of its radio: signal strength, registration and access technology. `docs/links.md` has the formats. What nobody has told for a while is not known, and limits on it do not count.",
        &[("modem", "`auto`: ModemManager, of the modem that has this interface among its ports; or of the one with this equipment identifier"),
          ("exec", "a program of this name in the daemon's directory for facts (`--facts`)"), ("file", "a file of this name there"),
          ("every", "how often it is asked, from `\"1s\"`; `\"5s\"` if left out"),
          ("lost-after", "after how long without a word what was told is not known any more; `\"30s\"` if left out")]),
    (&w::VEHICLE, "Who tells of the vehicle: its speed and its position, for `when` and `usable`. What nobody has told for a while is not known, and meets no condition.",
        &[("gpsd", "where the GPS daemon listens: an address with a port such as `\"[::1]:2947\"`, or the path of its socket"),
          ("exec", "a program of this name in the daemon's directory for facts (`--facts`)"), ("file", "a file of this name there"),
          ("every", "how often a program or file is asked, from `\"1s\"`; `\"5s\"` if left out"),
          ("lost-after", "after how long without a word what was told is not known any more; `\"10s\"` if left out, and six times `every` where that is longer")]),

    (&w::GROUP, "Names several things at once; `@name` stands for them.", &[]),
    (&w::GROUP_INTERFACE, "Interfaces in it.", &[]),
    (&w::GROUP_PORT, "Ports and ranges in it; a range is quoted.", &[]),
    (&w::GROUP_PREFIX, "Prefixes in it.", &[]),
    (&w::SET, "A long list of prefixes, read from a file with one a line; `@name` stands for them.", &[("file", "the list, relative to this file")]),

    (&w::HOME, "A home network: where a mobile is at home, or whom an agent serves.", &[]),
    (&w::TUNNEL, "The one interface that home-bound packets enter.", &[("mtu", "octets, or `auto`; `auto` if left out")]),
    (&w::AGENT, "The home agent's address. `discover` asks the home link's agents by their anycast address, uses the first that accepts and another when that one fails (RFC 6275 §11.4.1).", &[]),
    (&w::ADDRESS, "The home address with the length of the home link's prefix.", &[]),
    (&w::MOBILE_NETWORK, "A prefix that moves with a mobile router (RFC 3963).", &[("on", "the interface it lives on")]),
    (&w::ALSO, "Further sources that the rules judge and that are never tunnelled.", &[("from", "the interface by which they enter; obligatory")]),
    (&w::REGISTER, "How the mobile registers.",
        &[("lifetime", "a multiple of 4 s; `\"420s\"` if left out"), ("multiple-coa", "several care-of addresses at once (RFC 5648); `#true` if left out"),
          ("bulk", "all of them in one Binding Update; `#true` if left out"), ("mode", "how prefixes are named to the agent: `explicit` or `implicit`"),
          ("flow-bindings", "whether the rules are told to the agent (RFC 6089), so that answers take the way of their questions; `#true` if left out"),
          ("reflect", "whether the agent is asked to send a flow down by the link it goes up by, among the links of its rule, even if the rule would choose another for a new flow, and whether a flow that is to move waits at the agent, too, until it comes up by its new link (2 s at most); only agents of this program know it; `#true` if left out")]),
    (&w::HOME_SECURITY, "The security association, or `none` on purpose.", &[]),
    (&w::PROBE, "How often links are probed.",
        &[("every", "while a link stands by; `\"1s\"` if left out"), ("active-every", "while it carries traffic; `\"200ms\"` if left out")]),
    (&w::ROUTE_OPTIMIZATION, "Whether packets go straight to correspondents (RFC 6275 §9, §11.3.1), by the link that their rule chooses, and by the tunnel over the same link until the correspondent knows it: started by `traffic`, unless a rule says `optimize never`; by `policy`, for rules that say `optimize always` only; `off`, as if left out.",
        &[("lifetime", "what correspondents are asked for, a multiple of 4 s, at most and if left out `\"420s\"`"), ("correspondents", "how many at a time; `64` if left out")]),
    (&w::RETURNING_HOME, "What is used while a link is on the home link (RFC 5648 §5.5): `home` (it alone; all bindings end), `both` (it and the foreign links) or `foreign` (those alone). `home` if left out.", &[]),
    (&w::SERVE, "At a home agent: the home link's prefix.",
        &[("agent", "the address that mobiles register at"), ("on", "the interface of the home link, where home addresses are looked for and defended; if left out, the home network is on no link"),
          ("only-router", "whether the home link has no other router, so that a mobile that is at home and abroad at once may answer for itself there (RFC 5648 §6.3); `#false` if left out"),
          ("preference", "has the agent advertise itself on the home link as its router and with this preference: which of several agents mobiles are to try first, the highest first (RFC 6275 §7.4); if left out it advertises nothing, and counts as `0`"), ("lifetime", "the longest that is granted"),
          ("multiple-coa", "whether several care-of addresses are accepted; `#true` if left out"), ("bulk", "whether they may come in one Binding Update; `#true` if left out"),
          ("flow-bindings", "whether mobiles may tell their rules (RFC 6089); `#true` if left out"),
          ("reflect", "whether a flow may go down by the link on which it comes up, among those that its flow bindings allow, if the mobile asks; `#true` if left out"),
          ("unmatched", "what becomes of packets to a mobile of which it told nothing: `reflect` (the way their flow comes up, else as with `priority`) or `priority` (the binding of the lowest BID-PRI); `reflect` if left out")]),
    (&w::ALLOW, "At a home agent: a mobile that may register.", &[("name", "what people call it")]),
    (&w::ALLOWED_NETWORK, "Prefixes that it may register.", &[]),
    (&w::REFUSE, "At a home agent: a mobile that may not register for the time being, though it is allowed: its updates are answered with status 129 and what it has bound ends. `mtun agent revoke` and `permit` write and remove it.",
        &[("bid", "this binding only; the others go on")]),
    (&w::EXTENSIONS, "Messages that a registration can do without, each off unless `#true`. An agent sends them and a mobile believes them only where both have a key; without one, or without the right one, they change nothing. Those of `prefix-discovery` are the exception: nothing authenticates them.",
        &[("heartbeat", "whether the agent is asked regularly if it is there, and asked questions are answered (RFC 5847)"),
          ("heartbeat-every", "at a mobile how often the agent is asked, from `\"1s\"` to `\"1h\"`; `\"60s\"` if left out; RFC 5847 §5 advises against less than 30 s"),
          ("heartbeats-missing", "at a mobile how many questions in a row may stay without an answer, `1` to `16`; one more, and everything is registered again; `3` if left out"),
          ("agent-switch", "at an agent whether it sends its mobiles to other agents, at a mobile whether it goes (RFC 5142)"),
          ("revocation", "at an agent whether it tells mobiles that it ended their bindings, at a mobile whether it believes that (RFC 5846)"),
          ("prefix-discovery", "at an agent whether it tells its mobiles that are away what its home link's prefixes are, at a mobile whether it asks and believes that (RFC 6275 §10.6, §11.4.2); on a path on which nobody forges ICMPv6")]),
    (&w::BINDINGS, "How many bindings it may hold; `16` if left out.", &[]),
    (&w::FLOW_BINDINGS, "How many flow bindings it may hold, at most `512`: every Binding Update names them all; `64` if left out.", &[]),
    (&w::COPIES, "How many care-of addresses one of its flow bindings may have, so that each packet goes to as many at most; `4` if left out.", &[]),

    (&w::CORRESPONDENT, "What the node is to mobiles that talk to it: with a block, or nothing behind it, a correspondent that takes their bindings (RFC 6275 §9), whatever its role; `off`, as if left out, none.",
        &[("answer", "with `off`: what mobiles that try get, `silent` or `parameter-problem` (ICMPv6, as from a node that knows no mobility); `silent` if left out")]),
    (&w::CORRESPONDENT_ADDRESS, "Its addresses; obligatory for the role `correspondent`. A mobile is one at its home addresses, a home agent at the agent's.", &[]),
    (&w::LIFETIME, "The longest that is granted, a multiple of 4 s, at most and if left out `\"420s\"`.", &[]),
    (&w::MULTIPLE_COA, "Whether a mobile may register several care-of addresses (RFC 5648); `#true` if left out.", &[]),
    (&w::MOBILES, "How many may have bindings at a time; `1024` if left out.", &[]),

    (&w::SECURITY, "A security association; the key is never in the file.", &[]),
    (&w::AUTH_OPTION, "The mobility message authentication option (RFC 4285).",
        &[("spi", "its index, at least 256"), ("algorithm", "`hmac-sha256` or `hmac-sha1`"),
          ("key-file", "a file of mode 0600, relative to this one"), ("key-credential", "a credential of the service manager, instead of a file")]),
    (&w::SLA, "What flows need of a link, as a class; a limit left out is not looked at.",
        &[("rtt", "largest smoothed round trip time"), ("jitter", "largest jitter"), ("loss", "largest loss, in percent")]),

    (&w::RULES, "The rules of a home in the order in which they are tried; the first that matches wins.", &[("home", "which; may be left out if there is one")]),
    (&w::RULE, "A rule: of which packets it speaks, when, and exactly one verb.", &[]),
    (&w::DEFAULT, "The last rule, for everything that no other decides; obligatory, without `match` and `when`.", &[]),
    (&w::MATCH, "Of which packets the rule speaks. Properties of one line are AND, lines are OR.", MATCH),
    (&w::EXCLUDE, "Packets that are taken out again; written like `match`.", MATCH),
    (&w::WHEN, "When the rule speaks. Conditions of one line are AND, lines are OR. What is not known meets no condition. Unmet, its `otherwise` holds.",
        &[("speed", "of the vehicle: `\"<5km/h\"` or `\">80km/h\"`"), ("time", "local time of day, `\"22:00-05:00\"`"),
          ("near", "a position, degrees north and east: `\"48.137154,11.576124\"`"),
          ("within", "how near the vehicle has to come, such as `\"300m\"`; goes with `near`"),
          ("leave", "how far it has to go to be away again; a fifth more than `within` and at least 20 m if left out"),
          ("days", "days of the week, `\"mon-fri\"` or `\"sat,sun\"`; of a span over midnight the day on which it began")]),
    (&w::PREFER, "The first of these links that is usable.", &[]),
    (&w::BALANCE, "Spread over the links by weight, `balance wlan0=3 wwan0=1`: 256 buckets, the bucket is a hash of the sticky key; where the home agent is told the rules, buckets are ranges of the mobile's ports from 32768 up (or of the rule's own `sport`), so that both ends cut alike, and what has no such port takes the first link. A link that goes or returns moves its own buckets only.", &[]),
    (&w::OVERFLOW, "The first link until its load is over `full` of its `rate`, then new flows to the next; back under 70 %.",
        &[("full", "the load that counts as full; `\"85%\"` if left out")]),
    (&w::FASTEST, "The lowest smoothed round trip time. A challenger has to win for 5 s.",
        &[("margin", "by how much, at least 5 ms; `\"10%\"` if left out")]),
    (&w::CHEAPEST, "The lowest `cost` among the links that are in the class.", &[("sla", "the class; every link is in it if left out")]),
    (&w::DUPLICATE, "A copy on each of the first usable links.",
        &[("copies", "how many, 2 to 8; `2` if left out"), ("cap", "octets of copies that metered links may carry in a quota period; obligatory if one is metered")]),
    (&w::BREAKOUT, "Out of the first attached link directly, outside the tunnel: for sources named by `also`, for home sources only with translation.",
        &[("translate", "`#true`: the source becomes the link's own address")]),
    (&w::BLOCK, "Refused.", &[("reply", "`icmp` (administratively prohibited), `reset` (TCP reset, ICMP for others) or `none`; `icmp` if left out")]),
    (&w::OTHERWISE, "What happens when nothing is usable or `when` is not met: `next-rule`, `any` (every usable link in its present order), or another verb with its properties. `next-rule` if left out.", &[]),
    (&w::STICKY, "What keeps to its link: a `flow`, a `pair` of addresses, a `host`, or `none`. `flow` if left out.",
        &[("for", "how long after the last packet; `\"10m\"` if left out")]),
    (&w::TOGETHER, "Flows of rules with the same word and the same sticky key share one link, so that a call's signalling and its voice never part.", &[]),
    (&w::FAILBACK, "When a flow goes back to a link that its rule likes better: `new` (new flows only), `gap` (in a pause between packets), `now` or `never`. `gap` if left out; a metered link forces at least that.",
        &[("after", "how long the better link must have been usable; `\"0s\"` if left out")]),

    (&w::OPTIMIZE, "Whether packets of the rule may go straight to correspondents: `always`, as soon as there is a flow, or `never`. If left out, as the home's `route-optimization` says.", &[]),

    (&w::FLOW_BUDGET, "How many flow bindings each home agent may be told (RFC 6089), 1 to 512; `64` if left out, which is what agents hold for a mobile unless their `allow` says another number. Rules that take more are refused by `check`, the costliest by name.", &[]),
    (&w::TEST, "A sentence and the proof of it: `check` runs it, `apply` refuses a file whose tests fail.", &[]),
    (&w::FLOW, "The packet that is judged.", FLOW),
    (&w::EXPECT, "What must come out: a rule, a link, several links for copies, `blocked`, `unreachable`, or `breakout` with a link.",
        &[("rule", "the rule that decides"), ("via", "the link; of copies all of them, `\"wlan0,wwan0\"`"),
          ("optimized", "whether its packets may go straight to the correspondent; whether they do depends on what that holds")]),
    (&w::GIVEN, "What is supposed; without it every link is up, and neither speed nor time are known.", &[]),
];

/// What the language means where two readings were possible.
pub(super) const DECISIONS: &[(&str, &str)] = &[
    (
        "First match wins",
        "Rules are tried in order. A rule that matches and whose links cannot be used goes on with its `otherwise`; `next-rule` asks the next one. Exactly one verb per rule, exactly one `default` per rule set.",
    ),
    (
        "`when`",
        "Lines are OR, conditions on one line are AND, as with `match`. If none is met, the rule still matches, and its `otherwise` holds.",
    ),
    (
        "Usable",
        "A link is usable if it is registered, attached and nothing steering knows speaks against it. A link that is recovering is not used unless nothing else is registered and good. The first registration of all does not wait.",
    ),
    (
        "Last link",
        "Verdicts of probes and figures, and holds, never take away the last link that packets can be sent by; it is used as `degraded`, and shown so. Only what an operator or a hard quota forbids stays forbidden.",
    ),
    (
        "`otherwise any`",
        "Every usable link in its present order: the good ones by priority, then the degraded; drained ones and those over a soft quota only if there is no other.",
    ),
    (
        "Last choice",
        "A drained link and one over a soft quota is named by a rule only when neither its verb nor its `otherwise` has another.",
    ),
    (
        "`also`",
        "A packet that enters by such an interface and whose source is no home source is judged by the same rules, but rules whose verb tunnels do not speak of it. It leaves by `breakout`, or it is refused; it is never tunnelled.",
    ),
    (
        "`breakout`",
        "The packet leaves by the link's own interface. With `translate=#true` its source becomes the link's address, and answers find their way back.",
    ),
    (
        "Moves",
        "A flow leaves a link that cannot be used at once. It leaves a link that its rule no longer names, or after its rule changed, in a gap that leaves no packet overtaken, at latest 2 s after; slow to fast waits for the gap, fast to slow does not.",
    ),
    (
        "Failback",
        "It holds for every verb: a flow that is on an allowed usable link which is not its rule's first choice goes back by `new`, `gap`, `now` or `never`, to links that have been usable for at least `after`.",
    ),
    (
        "Same rule",
        "Two rules of two policies are the same if they mean the same. Under another policy a flow whose rule is the same and still allows its link stays where it is.",
    ),
    (
        "`balance`",
        "On a change only the buckets of links that went or returned are given anew; flows that are active keep their link.",
    ),
    (
        "`together`",
        "The choice is shared by the word and the sticky key, for as long as `sticky` says.",
    ),
    (
        "`overflow`",
        "Its links need a `rate`. Flows on a full link stay there; new ones go to the next.",
    ),
    (
        "`optimize`",
        "It never says by which link. Packets go straight while the correspondent holds the binding of the very link that their rule chose; else, and until then, they take the tunnel over that link. Only packets of the home address itself go straight, those of mobile networks never. What `mtun steer` steers goes straight unless some rule of the home says `never`.",
    ),
    (
        "Roles together",
        "One file is one role. A mobile router is a mobile node in each home without `mobile-network`. `correspondent` makes a node of any role a correspondent besides. A home agent and a mobile need a file and a daemon each.",
    ),
    (
        "Time",
        "`time` and `days` are local time. A span that ends before it begins goes over midnight, and belongs to the day on which it began.",
    ),
    (
        "What a backend cannot tell",
        "`check` takes the whole language. A daemon refuses at start and at `apply` a policy that looks at fields which its packet path cannot tell apart.",
    ),
];
