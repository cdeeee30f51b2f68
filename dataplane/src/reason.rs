//! Why a packet went no further: every no of the data plane, by name.

macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$why:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$why])* $variant,)* }

        impl $name {
            /// Every reason, in the order of its counter.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name used in metrics and by `mtun`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

reasons! {
    /// Why a packet was dropped.
    DropReason {
        /// Seen on the home-bound interface, yet neither its source nor its destination is
        /// anybody's home.
        NotOurs = "not-ours",
        /// The home is known but nothing can carry the packet.
        NoUsableBinding = "no-usable-binding",
        /// A packet of a further source (`also`) for which no rule has a way outside the tunnel.
        NeverTunnelled = "never-tunnelled",
        /// A rule would let a home source out of the tunnel with its own address.
        Untranslated = "untranslated-breakout",
        /// A rule says `block`.
        Blocked = "blocked",
        /// The inner packet is larger than the path of its binding takes.
        TooBig = "too-big",
        /// The inner hop limit is used up.
        HopLimit = "hop-limit",
        /// The inner packet forbids another encapsulation (RFC 2473 §4.1.1).
        EncapsulationLimit = "encapsulation-limit",
        /// The inner packet would come back through the tunnel it goes into.
        Hairpin = "hairpin",
        /// The inner packet is not IPv6.
        InnerVersion = "inner-version",
        /// The inner packet is shorter than its header, or its length field lies.
        InnerLength = "inner-length",
        /// The inner header chain is malformed, longer than the caps, or cut before its end.
        InnerHeaders = "inner-headers",
        /// The inner source is multicast, unspecified, loopback, link-local, site-local or a
        /// mapped IPv4 address.
        InnerSourceScope = "inner-source-scope",
        /// The same for the inner destination.
        InnerDestinationScope = "inner-destination-scope",
        /// A type 0 routing header (RFC 5095), or one to our home that is not a well-formed type 2
        /// header naming it.
        RoutingHeader = "routing-header",
        /// A tunnelled packet whose inner source is no mobile's of ours, and whose inner
        /// destination is no home of ours.
        InnerUnknown = "inner-unknown",
        /// The outer source is not a registered care-of address of the inner source.
        NotCareOf = "not-care-of",
        /// The outer source is not the home agent of the inner destination.
        NotHomeAgent = "not-home-agent",
        /// The outer destination is not the agent address, or not a care-of address, of that
        /// registration.
        OuterDestination = "outer-destination",
        /// The outer packet is malformed.
        OuterMalformed = "outer-malformed",
        /// The outer packet says "congestion experienced" and the inner cannot (RFC 6040 §4.2).
        Congestion = "congestion",
        /// Outer fragments overlap or contradict each other (RFC 5722).
        FragmentOverlap = "fragment-overlap",
        /// An outer fragment that reaches past 65535 octets, or is no multiple of eight.
        FragmentMalformed = "fragment-malformed",
        /// No room to keep an outer fragment.
        FragmentLimit = "fragment-limit",
        /// A Home Address option that is misplaced or not a unicast routable address.
        HomeAddressOption = "home-address-option",
        /// A Home Address option on data, without such a binding (RFC 6275 §9.3.1).
        HomeAddressWithoutBinding = "home-address-without-binding",
        /// A tunnel packet in a tunnel packet, deeper than is looked into.
        Nesting = "nesting",
        /// A further copy of a packet that was delivered, or one so late that nobody knows.
        Duplicate = "duplicate",
        /// The packet could not be encapsulated within 65535 octets.
        Oversize = "oversize",
    }
}

reasons! {
    /// Why a received outer packet is left to the kernel or kept for later.
    IgnoreReason {
        /// Addressed to somebody else.
        NotToUs = "not-to-us",
        /// A type 2 routing header that names no home address of ours: dropped, unless another of
        /// this node's homes knows it.
        NotOurHome = "not-our-home",
        /// Neither tunnelled, nor signalling, nor an error about our packets.
        NotTunnelled = "not-tunnelled",
        /// A fragment whose packet is not yet complete.
        FragmentHeld = "fragment-held",
        /// A copy that waits for what was sent before it.
        CopyHeld = "copy-held",
        /// An ICMPv6 error that quotes no packet we could have sent.
        ForgedError = "forged-error",
        /// An ICMPv6 error that asks for nothing.
        ErrorWithoutEffect = "error-without-effect",
        /// An answer that was due but exceeded the rate limit.
        RateLimited = "rate-limited",
    }
}

impl IgnoreReason {
    /// Whether something was refused that was meant for us: an error that was not believed or had
    /// no effect, an answer that was not given.
    pub fn is_refusal(self) -> bool {
        match self {
            Self::ForgedError | Self::ErrorWithoutEffect | Self::RateLimited => true,
            Self::NotToUs
            | Self::NotOurHome
            | Self::NotTunnelled
            | Self::FragmentHeld
            | Self::CopyHeld => false,
        }
    }
}
