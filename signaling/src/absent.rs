//! Roles that this build leaves out, for programs that drive all machines alike.
//!
//! Their words stay, so that whoever drives machines is written once; the machines themselves are
//! types without a value, and so nothing of them is in the program. Who makes one is in error: a
//! policy of such a role is to be refused before.

/// A machine that is left out, as large as what drives it needs.
#[allow(unused_macros, reason = "with all roles none is left out")]
macro_rules! absent {
    (
        $(#[$doc:meta])* $name:ident, $event:ty, $output:ty,
        new($($argument:ty),*),
        $($(#[$reader_doc:meta])* fn $reader:ident(&self) -> $result:ty;)*
    ) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub enum $name {}

        impl $name {
            /// Nothing: this build leaves the role out, and a policy of it was to be refused.
            pub fn new($(_: $argument),*) -> Self {
                unreachable!("this build leaves the role out, and its policies are refused")
            }

            $(
                $(#[$reader_doc])*
                pub fn $reader(&self) -> $result {
                    match *self {}
                }
            )*
        }

        impl crate::machine::Machine for $name {
            type Event = $event;
            type Output = $output;

            fn handle(&mut self, _: crate::time::Timestamp, _: $event) {
                match *self {}
            }

            fn handle_deadline(&mut self, _: crate::time::Timestamp) {
                match *self {}
            }

            fn poll(&mut self) -> Option<$output> {
                match *self {}
            }

            fn deadline(&self) -> Option<std::time::Duration> {
                match *self {}
            }
        }
    };
}

/// The words of a home agent, without the agent.
#[cfg(not(feature = "agent"))]
pub mod agent {
    use std::time::Duration;

    use mtun_policy::{HomeAddress, HomeAgentAddress};

    use crate::binding::BindingCache;
    use crate::time::Timestamp;

    pub use crate::whole_agent::*;

    absent! {
        /// There is no home agent.
        HomeAgent, AgentEvent, AgentOutput, new(AgentConfig),
        /// What is registered.
        fn cache(&self) -> &BindingCache;
        /// Its own address.
        fn address(&self) -> HomeAgentAddress;
        /// The gate for its messages.
        fn gate(&self) -> Gate;
        /// Rises with every configuration.
        fn configured(&self) -> u64;
    }

    impl HomeAgent {
        /// What must be kept of a mobile.
        pub fn record(&self, _: Timestamp, _: HomeAddress) -> Option<MobileRecord> {
            match *self {}
        }

        /// What has come of a mobile's updates.
        pub fn account(&self, _: HomeAddress) -> Option<&Account> {
            match *self {}
        }

        /// Takes back what was kept of a mobile.
        pub fn restore(&mut self, _: Timestamp, _: &MobileRecord, _: Duration) {
            match *self {}
        }
    }
}

/// The words of a correspondent, without the correspondent.
#[cfg(not(feature = "correspondent"))]
pub mod correspondent {
    use crate::binding::BindingCacheEntry;
    use crate::seed::Seed;

    pub use crate::whole_correspondent::*;

    absent! {
        /// There is no correspondent.
        Correspondent, CorrespondentEvent, CorrespondentOutput, new(CorrespondentConfig, Seed),
        /// How many pairs take memory.
        fn load(&self) -> (usize, usize);
    }

    impl Correspondent {
        /// What is bound.
        pub fn bindings(&self) -> impl Iterator<Item = (Pair, &BindingCacheEntry)> {
            match *self {}
            #[allow(unreachable_code, reason = "what is never returned still has a type")]
            std::iter::empty()
        }

        /// What is bound for one pair.
        pub fn get(&self, _: Pair) -> Option<&BindingCacheEntry> {
            match *self {}
        }
    }
}

/// The words of a mobile node and router, without the mobile.
#[cfg(not(feature = "mobile"))]
pub mod mobile {
    use mtun_policy::Bid;

    use crate::binding::BindingUpdateList;
    use crate::time::Timestamp;

    pub use crate::whole_mobile::*;

    absent! {
        /// There is no mobile node.
        MobileNode, MobileEvent, MobileOutput, new(MobileConfig, Timestamp),
        /// Its configuration.
        fn config(&self) -> &MobileConfig;
        /// Whether it registers one care-of address only.
        fn is_single(&self) -> bool;
        /// What it asked the agent for.
        fn update_list(&self) -> BindingUpdateList;
        /// The link by which it is at home.
        fn at_home(&self) -> Option<(Bid, Stay)>;
    }

    /// The words of route optimization, without it.
    pub mod route_optimization {
        use crate::seed::Seed;

        pub use crate::whole_mobile::route_optimization::*;

        absent! {
            /// There is no route optimization.
            RouteOptimization, RouteOptimizationEvent, RouteOptimizationOutput,
            new(RouteOptimizationConfig, Seed),
            /// Its configuration.
            fn config(&self) -> &RouteOptimizationConfig;
        }

        impl RouteOptimization {
            /// What correspondents hold.
            pub fn bindings(&self) -> impl Iterator<Item = CorrespondentBinding> {
                match *self {}
                #[allow(unreachable_code, reason = "what is never returned still has a type")]
                std::iter::empty()
            }

            /// What is known of every correspondent and BID.
            pub fn entries(&self) -> impl Iterator<Item = CorrespondentEntry> {
                match *self {}
                #[allow(unreachable_code, reason = "what is never returned still has a type")]
                std::iter::empty()
            }
        }
    }

    /// The words of discovery, without it.
    pub mod discovery {
        use mtun_policy::HomeAgentAddress;

        use crate::seed::Seed;

        pub use crate::whole_mobile::discovery::*;

        absent! {
            /// There is no discovery of home agents.
            AgentDiscovery, AgentDiscoveryEvent, AgentDiscoveryOutput,
            new(AgentDiscoveryConfig, Seed),
            /// The agent to register at.
            fn current(&self) -> Option<HomeAgentAddress>;
        }

        impl AgentDiscovery {
            /// The agents that answered.
            pub fn agents(&self) -> impl Iterator<Item = HomeAgentAddress> {
                match *self {}
                #[allow(unreachable_code, reason = "what is never returned still has a type")]
                std::iter::empty()
            }
        }

        absent! {
            /// There is no discovery of prefixes.
            PrefixDiscovery, PrefixDiscoveryEvent, PrefixDiscoveryOutput,
            new(PrefixDiscoveryConfig, Seed),
        }

        impl PrefixDiscovery {
            /// The prefixes of the home link.
            pub fn prefixes(&self) -> impl Iterator<Item = &HomePrefix> {
                match *self {}
                #[allow(unreachable_code, reason = "what is never returned still has a type")]
                std::iter::empty()
            }
        }
    }
}
