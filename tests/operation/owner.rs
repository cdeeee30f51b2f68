//! A daemon without a network: the real control server, and an owner task with fixed answers.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use mtun::control::documents::{
    AgentChange, AgentSwitchedDocument, BindingsDocument, FlowsDocument, LinkAdminDocument,
    MobilesDocument, PolicyAppliedDocument, PolicyConfirmedDocument, PolicyRolledBackDocument,
    SentDocument, StatusDocument, SteerDocument, SteerListDocument, SteerUndoDocument,
};
use mtun::control::protocol::PolicySource;
use mtun::control::{
    Access, ControlError, ControlRequest, ErrorCode, Limits, Listeners, Request, Response, Server,
    Settings,
};
use mtun_policy::NoFiles;
use mtun_policy::steering::Admin;
use mtun_signaling::mobility_socket::{Facts, MdCommand, MobilityMessage};
use tokio::sync::{mpsc, oneshot};

use super::documents;

/// A directory of our own, removed when dropped.
pub struct Scratch(pub PathBuf);

impl Scratch {
    /// Others may look into it, as into /run, and not write.
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("mtun-operation-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        Self(path)
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// How the daemon of a test differs from the usual one.
pub struct Plan {
    pub access: Access,
    pub policy_directory: Option<PathBuf>,
    pub limits: Limits,
    pub status: StatusDocument,
    /// How much waits for one who listens.
    pub events: usize,
    /// What stands.
    pub facts: Facts,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            access: Access::default(),
            policy_directory: None,
            limits: Limits::default(),
            status: documents::status(),
            events: 1024,
            facts: Facts::default(),
        }
    }
}

/// The running daemon; stopped when dropped.
pub struct Owner {
    pub scratch: Scratch,
    pub listeners: Listeners,
    asked: Arc<Mutex<Vec<Request>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Owner {
    pub fn start(plan: Plan) -> Self {
        let scratch = Scratch::new();
        let Plan { access, policy_directory, limits, status, events, facts } = plan;
        let settings =
            Settings { path: scratch.join("mtun.sock"), access, policy_directory, limits };
        let listeners = Listeners::new(events, Instant::now());
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let asked = Arc::default();
        let thread = std::thread::spawn({
            let (listeners, asked) = (listeners.clone(), Arc::clone(&asked));
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.unwrap().block_on(async move {
                    let server = Server::bind(settings).await.unwrap();
                    ready.send(()).unwrap();
                    let (requests, inbox) = mpsc::channel(8);
                    tokio::select! {
                        () = server.serve(requests, listeners.clone()) => {}
                        () = own(inbox, &status, &asked, &listeners, &facts) => {}
                        _ = stopped => {}
                    }
                });
            }
        });
        is_ready.recv().unwrap();
        Self { scratch, listeners, asked, stop: Some(stop), thread: Some(thread) }
    }

    pub fn socket(&self) -> PathBuf {
        self.scratch.join("mtun.sock")
    }

    /// What the owner was asked since the last call.
    pub fn asked(&self) -> Vec<Request> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.end();
    }
}

async fn own(
    mut inbox: mpsc::Receiver<ControlRequest>,
    status: &StatusDocument,
    asked: &Mutex<Vec<Request>>,
    listeners: &Listeners,
    facts: &Facts,
) {
    while let Some(ControlRequest { request, reply, .. }) = inbox.recv().await {
        asked.lock().unwrap().push(request.clone());
        if matches!(request, Request::Subscribe { .. }) {
            listeners.begin_fill();
            listeners.fill_piece(facts.iter().map(|(_, fact)| (**fact).clone()).collect());
            listeners.end_fill();
        }
        let _ = reply.send(answer(&request, status));
    }
}

/// Answers as the daemon does, from fixed documents.
pub fn answer(request: &Request, status: &StatusDocument) -> Result<Response, ControlError> {
    Ok(match request {
        Request::Status {} => Response::Status(status.clone()),
        Request::Overview {} => {
            Response::Status(StatusDocument { mobiles: Vec::new(), ..status.clone() })
        }
        Request::Mobiles { search, .. } => Response::Mobiles(MobilesDocument {
            search: search.clone(),
            matched: status.mobiles.len(),
            known: status.mobiles.len(),
            registered: status.mobiles.len(),
            bindings: status.mobiles.iter().map(|mobile| mobile.bindings.len()).sum(),
            mobiles: status.mobiles.clone(),
        }),
        Request::Bindings {} => Response::Bindings(BindingsDocument {
            bindings: status.bindings.clone(),
            mobiles: status.mobiles.clone(),
            flow_bindings: status.flow_bindings.clone(),
            routes: status.routes.clone(),
            correspondent: status.correspondent.clone(),
        }),
        Request::Flows { filter, limit } => {
            if let Some(filter) = filter {
                mtun_policy::parse_filter(filter, None)?;
            }
            let (filter, mut all) = (filter.clone(), documents::flows());
            // What cannot leave has no way.
            if !status.bindings.is_empty() && !status.bindings.iter().any(|it| it.usable) {
                for flow in &mut all {
                    flow.outbound = None;
                    flow.downlink = None;
                }
            }
            let matched = all.len();
            let flows = all.into_iter().take(limit.unwrap_or(usize::MAX)).collect();
            Response::Flows(FlowsDocument { filter, matched, flows })
        }
        Request::Explain { .. } => Response::Explain(documents::explanation()),
        Request::Steer { via, .. } if via == "wwan0" => {
            Response::Steer(SteerDocument { steered: documents::steered(), generation: 6 })
        }
        Request::Steer { via, .. } => {
            let message = format!("there is no link {via}");
            return Err(ControlError::new(ErrorCode::NotFound, message).help("links: wlan0, wwan0"));
        }
        Request::SteerList {} => {
            Response::SteerList(SteerListDocument { overrides: vec![documents::steered()] })
        }
        Request::Link { link, admin } if link == "wwan0" => {
            let (link, before) = (link.as_str().into(), Admin::Open);
            Response::Link(LinkAdminDocument { link, admin: *admin, before, generation: 8 })
        }
        Request::Link { link, .. } => {
            let message = format!("there is no link {link}");
            return Err(ControlError::new(ErrorCode::NotFound, message).help("links: wlan0, wwan0"));
        }
        Request::SteerUndo { id: 61440 } => {
            let undone = documents::steered();
            Response::SteerUndo(SteerUndoDocument { undone, generation: 7 })
        }
        Request::SteerUndo { id } => {
            let message = format!("there is no override {id}");
            return Err(ControlError::new(ErrorCode::NotFound, message));
        }
        Request::PolicyApply { source, confirm_seconds, .. } => {
            let policy = match source {
                PolicySource::File(file) => mtun_policy::load_tested(file)?,
                PolicySource::Text(text) => mtun_policy::parse("request", text, &NoFiles)?,
            };
            Response::PolicyApplied(PolicyAppliedDocument {
                name: policy.name,
                rules: policy.homes.iter().map(|home| home.rules.rules.len()).sum(),
                tests: policy.tests.len(),
                generation: 6,
                changed: true,
                entry: Some(4),
                confirm_within_seconds: *confirm_seconds,
            })
        }
        Request::PolicyConfirm {} => {
            let confirmed = documents::history_entry();
            Response::PolicyConfirmed(PolicyConfirmedDocument { confirmed })
        }
        Request::PolicyRollback { entry: None } => {
            Response::PolicyRolledBack(PolicyRolledBackDocument {
                restored: documents::history().entries[1].clone(),
                taken_back: documents::history_entry(),
                generation: 7,
            })
        }
        Request::PolicyRollback { entry: Some(entry) } => {
            let message = format!("there is no policy {entry} in the history");
            return Err(ControlError::new(ErrorCode::NotFound, message));
        }
        Request::PolicyDiff { .. } => Response::PolicyDiff(documents::diff()),
        Request::PolicyHistory { entry: None } => Response::PolicyHistory(documents::history()),
        Request::PolicyHistory { entry: Some(wanted) } => {
            let mut history = documents::history();
            history.entries.retain(|entry| entry.entry == *wanted);
            if history.entries.is_empty() {
                let message = format!("there is no policy {wanted} in the history");
                return Err(ControlError::new(ErrorCode::NotFound, message));
            }
            history.text = Some("policy \"city-bus\"\n".to_owned());
            Response::PolicyHistory(history)
        }
        Request::PolicyShow {} | Request::PolicyRules {} => Response::Policy(documents::policy()),
        Request::AgentList {} => Response::AgentList(documents::agent_list()),
        Request::AgentAdd { mobile } if mobile.replace => {
            return Err(ControlError::new(ErrorCode::Refused, "it stands in the policy file")
                .help("take it out there"));
        }
        Request::AgentAdd { .. } => {
            Response::AgentChanged(documents::agent_changed(AgentChange::Added, None))
        }
        Request::AgentRemove { .. } => {
            Response::AgentChanged(documents::agent_changed(AgentChange::Removed, None))
        }
        Request::AgentRevoke { bid, .. } => {
            Response::AgentChanged(documents::agent_changed(AgentChange::Revoked, *bid))
        }
        Request::AgentSwitch { home_address, agents } => {
            let (home_address, agents) = (*home_address, agents.clone());
            Response::AgentSwitched(AgentSwitchedDocument { home_address, agents, bindings: 2 })
        }
        Request::AgentPermit { home_address, .. }
            if *home_address != documents::agent_mobile().home_address =>
        {
            let message = format!("{home_address} is not served here");
            return Err(ControlError::new(ErrorCode::NotFound, message));
        }
        Request::AgentPermit { bid, .. } => {
            Response::AgentChanged(documents::agent_changed(AgentChange::Permitted, *bid))
        }
        Request::Metrics {} => Response::Metrics(documents::first_figures()),
        Request::Subscribe { .. } => Response::Subscribed { waiting_max: 1024 },
        Request::Send { message } => Response::Sent(SentDocument {
            message: message.kind(),
            done: "done".to_owned(),
            claimed: match &**message {
                MobilityMessage::MdInfo(said) if said.command != MdCommand::Scan => {
                    said.link.clone()
                }
                _ => None,
            },
        }),
        Request::Monitor {} => unreachable!("the server answers this itself"),
    })
}

/// A file of the examples.
pub fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}
