//! The script of `mtun demo`: figure 10 with one `mtun0`, figure 11, and a bad day for the WLAN.
//!
//! Six flows run all the time: SSH, bulk and probes, from the router itself (Mobile IPv6) and
//! from the node behind it (NEMO). Each phase does one thing, waits until the flows have settled
//! on their uplinks, lets the traffic run for a while and judges it as a whole.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::daemons::{Arguments, Daemon, Programs, Side, write_keys};
use super::namespace::Shell;
use super::namespace::end_waits_on_signals;
use super::observe::{Observatory, Way};
use super::policy::PolicyText;
use super::record::{self, Which};
use super::report::{BindingReport, PhaseReport, Report, TunnelReport, table};
use super::traffic::{FlowRow, Name, Origin, Traffic};
use super::world::{Plan, World, address};

/// How long anything may take before the demo gives up.
const PATIENCE: Duration = Duration::from_secs(20);
/// Probes sent by each origin after a phase has settled.
const DWELL: u32 = 1500;
/// The longest gap that passes for a handover, in milliseconds; the bench has the real goal.
const HANDOVER_MS: f64 = 1000.0;

/// What the demo is asked.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Leave the world for playing.
    pub keep: bool,
    /// Print every command.
    pub verbose: bool,
    /// Arguments with which this program calls [`super::keeper::hold`]; needed for `keep`.
    pub keeper: Vec<String>,
}

/// Runs the demo; `say` gets lines for people as things happen.
pub fn run(options: &Options, say: &mut dyn FnMut(&str)) -> Result<Report> {
    super::able().map_err(anyhow::Error::msg)?;
    end_waits_on_signals();
    let programs = Programs::beside_this()?;
    say("Building the world of figure 10 in network namespaces …");
    let world = World::build(Plan { verbose: options.verbose, ..Plan::default() })?;
    say(&format!("  {}", picture(world.run())));
    write_keys(&world)?;
    let text = PolicyText::default();
    let none = Arguments::default();
    let agent = Daemon::start(&world, &programs, Side::Agent, &text, &none)?;
    let mobile = Daemon::start(&world, &programs, Side::Mobile, &text, &none)?;
    let mut stage = Stage::open(&world, mobile, say)?;
    if let Err(error) = stage.play(&text) {
        stage.report.reasons.push(format!("{error:#}"));
    }
    let (mobile, report) = stage.close()?;
    if !options.keep {
        return Ok(report);
    }
    leave(world, mobile, agent, report, options, say)
}

/// Removes kept worlds and those of dead runs; their names.
pub fn stop() -> Result<Vec<String>> {
    record::remove_all(Which::KeptAndStale, &Shell::default())
}

fn picture(run: &str) -> String {
    format!(
        "namespaces {run}-{{mr,mnn,wlan,wcdma,core,ha,home,cn}}\n\n  \
         mnn ── lan0 [ mr: mtun0 ] wlan0 ══ WLAN ═════╗\n                          \
         [           ] wwan0 ── W-CDMA ── core ── ha (home agent)\n                                                       \
         └── cn (correspondent)\n"
    )
}

fn leave(
    world: World,
    mut mobile: Daemon,
    mut agent: Daemon,
    mut report: Report,
    options: &Options,
    say: &mut dyn FnMut(&str),
) -> Result<Report> {
    mobile.process.keep();
    agent.process.keep();
    let (socket, router) = (mobile.socket().display().to_string(), world.mr.name().to_owned());
    let node = world.mnn.name().to_owned();
    let keeper: Vec<&str> = options.keeper.iter().map(String::as_str).collect();
    report.kept = world.leave(&keeper)?;
    say(&format!(
        "Left for playing. Try:\n  mtun --socket {socket} status\n  ip netns exec {router} ip -6 rule\n  \
         ip netns exec {node} traceroute {}\nand then: mtun demo --stop",
        address::CORRESPONDENT
    ));
    Ok(report)
}

/// The running demo.
struct Stage<'w, 's> {
    world: &'w World,
    mobile: Daemon,
    traffic: Traffic,
    observatory: Observatory,
    report: Report,
    say: &'s mut dyn FnMut(&str),
}

/// What a phase has to show.
struct Phase<'p> {
    name: &'static str,
    /// What is done, for people.
    doing: &'p str,
    /// Where each flow must be after it.
    uplink: fn(Name, Origin) -> &'static str,
    /// The rule that must decide each flow; `None` to leave it out.
    rule: fn(Name, Origin) -> Option<&'static str>,
    /// Whether packets may be lost: only when a link dies.
    may_lose: bool,
}

fn figure_11(name: Name, _: Origin) -> &'static str {
    if name == Name::Ssh { "wwan0" } else { "wlan0" }
}

fn rule_of_figure_11(name: Name, _: Origin) -> Option<&'static str> {
    Some(match name {
        Name::Ssh => "ssh",
        Name::Bulk => "bulk",
        Name::Probe => "default",
    })
}

impl<'w, 's> Stage<'w, 's> {
    fn open(world: &'w World, mobile: Daemon, say: &'s mut dyn FnMut(&str)) -> Result<Self> {
        // Taps first: nothing may leave plain before the first registration either.
        let observatory = Observatory::open(world)?;
        say("Waiting for both care-of addresses to be registered …");
        let status = mobile.wait_for_links(&["wlan0", "wwan0"], PATIENCE)?;
        let mut report = Report::default();
        for binding in &status.bindings {
            say(&format!(
                "  BID {} is {} over {}",
                binding.bid.map_or_else(|| "none".into(), |bid| bid.to_string()),
                binding.care_of.map_or_else(|| "none".into(), |address| address.to_string()),
                binding.link.as_ref().map_or("none", |link| link.as_str()),
            ));
            report.bindings.push(BindingReport {
                bid: binding.bid,
                link: binding.link.as_ref().map(ToString::to_string),
                care_of: binding.care_of,
                phase: binding.phase.to_string(),
            });
        }
        report.tunnel = tunnel(world)?;
        let traffic = Traffic::start(world, PATIENCE).with_context(|| mobile.story())?;
        Ok(Self { world, mobile, traffic, observatory, report, say })
    }

    fn play(&mut self, text: &PolicyText) -> Result<()> {
        let usual = Phase {
            name: "registered",
            doing: "both uplinks are registered; SSH takes W-CDMA, the rest the WLAN",
            uplink: figure_11,
            rule: rule_of_figure_11,
            may_lose: false,
        };
        self.phase(&usual, |_| Ok(()))?;
        let down = Phase {
            name: "wlan-down",
            doing: "the WLAN loses its carrier; everything goes on over W-CDMA",
            uplink: |_, _| "wwan0",
            may_lose: true,
            ..usual
        };
        self.phase(&down, |stage| stage.world.wlan_down())?;
        let back = Phase {
            name: "wlan-back",
            doing: "the WLAN is back; what belongs there returns, and nothing is lost",
            ..usual
        };
        self.phase(&back, |stage| stage.world.wlan_up())?;
        self.steer(&usual)?;
        let says = "match proto=udp dport=4000\n        prefer wlan0 wwan0";
        let changed = text.clone().with_rule("probe", says);
        let file = self.mobile.policy().with_file_name("changed.kdl");
        std::fs::write(&file, changed.mobile)?;
        let reload = Phase {
            name: "policy-reload",
            doing: "a policy with one more rule is applied under traffic; probes now have their own",
            rule: |name, _| {
                Some(match name {
                    Name::Ssh => "ssh",
                    Name::Bulk => "bulk",
                    Name::Probe => "probe",
                })
            },
            ..usual
        };
        self.phase(&reload, |stage| {
            stage.mobile.mtun_ok(&["policy", "apply", &file.display().to_string()]).map(drop)
        })
    }

    /// Moves the node's probes by hand and lets them go again.
    fn steer(&mut self, usual: &Phase<'_>) -> Result<()> {
        let filter = format!("proto udp and src {} and dport 4000", address::NODE);
        let mut id = 0;
        let steered = Phase {
            name: "steered",
            doing: "`mtun steer` sends the node's probes by W-CDMA; the router's stay",
            uplink: |name, origin| match (name, origin) {
                (Name::Ssh, _) | (Name::Probe, Origin::Node) => "wwan0",
                _ => "wlan0",
            },
            rule: |name, origin| match (name, origin) {
                (Name::Probe, Origin::Node) => None,
                _ => rule_of_figure_11(name, origin),
            },
            ..*usual
        };
        self.phase(&steered, |stage| {
            let words = ["steer", &filter, "via", "wwan0", "--for", "10m"];
            let result = stage.mobile.mtun_ok(&words)?;
            id = result["override"]["id"].as_u64().context("an override without number")?;
            Ok(())
        })?;
        let undone = Phase {
            name: "steer-undone",
            doing: "`mtun steer undo`: the rules decide again",
            ..*usual
        };
        self.phase(&undone, |stage| {
            stage.mobile.mtun_ok(&["steer", "undo", &id.to_string()]).map(drop)
        })
    }

    fn phase(
        &mut self,
        phase: &Phase<'_>,
        action: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        (self.say)(&format!("\n{}: {}", phase.name, phase.doing));
        let mark = self.traffic.mark();
        let start = Instant::now();
        action(self)?;
        let settled = self.settle(phase);
        let settled_ms = settled.is_ok().then(|| (start.elapsed().as_micros() / 100) as f64 / 10.0);
        if let Err(error) = settled {
            self.report.reasons.push(format!("{}: {error:#}", phase.name));
        }
        self.traffic.let_run(DWELL)?;
        if let Err(error) = self.traffic.all_progress(PATIENCE) {
            self.report.reasons.push(format!("{}: {error:#}", phase.name));
        }
        let flows = self.traffic.rows(&mark, &self.observatory, &self.mobile);
        (self.say)(table(&flows).trim_end());
        self.judge(phase, &flows);
        self.look_at_tunnel()?;
        let summary = match settled_ms {
            Some(time) => format!("{} (settled after {time} ms)", phase.doing),
            None => format!("{} (NOT settled)", phase.doing),
        };
        self.report.phases.push(PhaseReport { phase: phase.name, summary, settled_ms, flows });
        Ok(())
    }

    /// Waits until every flow uses its uplink, telling each change as it is seen.
    fn settle(&mut self, phase: &Phase<'_>) -> Result<()> {
        let start = Instant::now();
        let mut shown: Vec<String> = Vec::new();
        loop {
            let patience = Duration::from_millis(100);
            let settled = self.traffic.wait_for_uplinks(&self.observatory, patience, phase.uplink);
            for (name, origin, flow) in self.traffic.keys() {
                let uplink =
                    |way| self.observatory.uplink(&flow, way).unwrap_or_else(|| "none".into());
                let line = format!(
                    "{name:<5} from {origin:<6} out {} in {}",
                    uplink(Way::Out),
                    uplink(Way::In)
                );
                if !shown.contains(&line) {
                    (self.say)(&format!("  {:6.3} s  {line}", start.elapsed().as_secs_f64()));
                    shown.push(line);
                }
            }
            match settled {
                Ok(()) => return Ok(()),
                Err(error) if start.elapsed() > PATIENCE => return Err(error),
                Err(_) => {}
            }
        }
    }

    fn judge(&mut self, phase: &Phase<'_>, flows: &[FlowRow]) {
        for row in flows {
            let what = format!("{}: {} from {}", phase.name, row.flow, row.from);
            if let Some(reason) = &row.broken {
                self.report.reasons.push(format!("{what} is broken: {reason}"));
            }
            let wanted = Some((phase.uplink)(row.flow, row.from).to_owned());
            self.report.require(row.uplink_outbound == wanted, || {
                format!("{what} goes out by {:?}, not {wanted:?}", row.uplink_outbound)
            });
            self.report.require(row.uplink_inbound == wanted, || {
                format!("{what} comes in by {:?}, not {wanted:?}", row.uplink_inbound)
            });
            if let Some(rule) = (phase.rule)(row.flow, row.from) {
                self.report.require(row.rule.as_deref() == Some(rule), || {
                    format!("{what} is decided by rule {:?}, not {rule}", row.rule)
                });
            }
            if row.flow == Name::Probe {
                let total = row.total;
                self.report.require(total.duplicated == 0, || {
                    format!("{what}: {} duplicated", total.duplicated)
                });
                self.report.require(phase.may_lose || total.lost == 0, || {
                    format!("{what}: {} lost", total.lost)
                });
                self.report.require(total.longest_gap_ms < HANDOVER_MS, || {
                    format!("{what}: a gap of {} ms", total.longest_gap_ms)
                });
            }
        }
    }

    fn look_at_tunnel(&mut self) -> Result<()> {
        let now = tunnel(self.world)?;
        let seen = &mut self.report.tunnel;
        seen.ifindex_changed |= now.ifindex != seen.ifindex;
        seen.mtu_changed |= now.mtu != seen.mtu;
        seen.interfaces = seen.interfaces.max(now.interfaces);
        Ok(())
    }

    fn close(mut self) -> Result<(Daemon, Report)> {
        let oddities = self.observatory.oddities();
        let report = &mut self.report;
        report.plain_home_source_packets = oddities.plain_home_source.max(self.world.leaked()?);
        report.parameter_problems = oddities.parameter_problems;
        let (plain, problems) = (report.plain_home_source_packets, report.parameter_problems);
        report.require(plain == 0, || format!("{plain} plain packets with a home source"));
        report.require(problems == 0, || format!("{problems} ICMPv6 Parameter Problems"));
        let tunnel = report.tunnel.clone();
        report.require(tunnel.interfaces == 1, || {
            format!("{} tunnel interfaces, not one", tunnel.interfaces)
        });
        report.require(!tunnel.ifindex_changed, || "the tunnel's index changed".into());
        report.require(!tunnel.mtu_changed, || "the tunnel's MTU changed".into());
        report.ok = report.reasons.is_empty();
        Ok((self.mobile, self.report))
    }
}

/// The router's tunnel interfaces: TUN devices that are not uplinks.
fn tunnel(world: &World) -> Result<TunnelReport> {
    let links = world.mr.ip_json("-details link show")?;
    let tunnels: Vec<&serde_json::Value> = links
        .as_array()
        .into_iter()
        .flatten()
        .filter(|link| {
            let name = link["ifname"].as_str().unwrap_or_default();
            let kind = link["linkinfo"]["info_kind"].as_str().unwrap_or_default();
            !matches!(name, "lo" | "lan0" | "wlan0" | "wwan0" | "wwan1") && kind != "veth"
        })
        .collect();
    let first = tunnels.first().context("the mobile router has no tunnel interface")?;
    Ok(TunnelReport {
        interfaces: tunnels.len(),
        name: first["ifname"].as_str().unwrap_or_default().to_owned(),
        ifindex: first["ifindex"].as_u64().unwrap_or_default() as u32,
        mtu: first["mtu"].as_u64().unwrap_or_default() as u32,
        ..TunnelReport::default()
    })
}
