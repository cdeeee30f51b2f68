//! Every assigned number of the Mobility Header, in one place.
//!
//! From the IANA "Mobile IPv6 Parameters" registry; the RFC that assigned a value stands beside it.

/// Next Header value of the Mobility Header (RFC 6275 §6.1.1).
pub const NEXT_HEADER_MOBILITY: u8 = 135;
/// Payload Proto: no next header, the only value received messages may have (RFC 6275 §9.2).
pub const PAYLOAD_PROTO_NONE: u8 = 59;
/// Next Header value of the Destination Options header (RFC 8200 §4.6).
pub const NEXT_HEADER_DESTINATION_OPTIONS: u8 = 60;
/// Next Header value of the Routing header (RFC 8200 §4.4).
pub const NEXT_HEADER_ROUTING: u8 = 43;
/// Option Type of the Home Address destination option (RFC 6275 §6.3).
pub const HOME_ADDRESS_OPTION: u8 = 0xc9;
/// Routing Type of the type 2 routing header (RFC 6275 §6.4.1).
pub const ROUTING_TYPE_2: u8 = 2;

/// Largest Mobility Header: Header Len has eight bits and counts units of eight octets.
pub const MAX_MESSAGE: usize = 2048;
/// Largest data of a mobility option.
pub const MAX_OPTION_DATA: usize = 255;
/// SPIs up to this one are reserved (RFC 4285 §8).
pub const LAST_RESERVED_SPI: u32 = 255;

/// MH Types and the smallest Header Len of each (RFC 6275 §6.1.2 to §6.1.9).
pub mod mh {
    /// Binding Refresh Request (§6.1.2).
    pub const BINDING_REFRESH_REQUEST: u8 = 0;
    /// Home Test Init (§6.1.3).
    pub const HOME_TEST_INIT: u8 = 1;
    /// Care-of Test Init (§6.1.4).
    pub const CARE_OF_TEST_INIT: u8 = 2;
    /// Home Test (§6.1.5).
    pub const HOME_TEST: u8 = 3;
    /// Care-of Test (§6.1.6).
    pub const CARE_OF_TEST: u8 = 4;
    /// Binding Update (§6.1.7).
    pub const BINDING_UPDATE: u8 = 5;
    /// Binding Acknowledgement (§6.1.8).
    pub const BINDING_ACKNOWLEDGEMENT: u8 = 6;
    /// Binding Error (§6.1.9).
    pub const BINDING_ERROR: u8 = 7;
    /// Home Agent Switch (RFC 5142 §4).
    pub const HOME_AGENT_SWITCH: u8 = 12;
    /// Heartbeat (RFC 5847 §3.3).
    pub const HEARTBEAT: u8 = 13;
    /// Binding Revocation (RFC 5846 §5).
    pub const BINDING_REVOCATION: u8 = 16;

    /// The smallest Header Len a message of this type may have; `None` for types this codec does
    /// not read.
    pub const fn minimum_header_len(mh_type: u8) -> Option<u8> {
        match mh_type {
            BINDING_REFRESH_REQUEST => Some(0),
            HOME_TEST_INIT | CARE_OF_TEST_INIT | BINDING_UPDATE | BINDING_ACKNOWLEDGEMENT => {
                Some(1)
            }
            HOME_TEST | CARE_OF_TEST | BINDING_ERROR => Some(2),
            _ => None,
        }
    }
}

/// Mobility option types.
pub mod option {
    /// Pad1 (RFC 6275 §6.2.2).
    pub const PAD1: u8 = 0;
    /// PadN (RFC 6275 §6.2.3).
    pub const PADN: u8 = 1;
    /// Binding Refresh Advice (RFC 6275 §6.2.4).
    pub const BINDING_REFRESH_ADVICE: u8 = 2;
    /// Alternate Care-of Address (RFC 6275 §6.2.5).
    pub const ALTERNATE_CARE_OF_ADDRESS: u8 = 3;
    /// Nonce Indices (RFC 6275 §6.2.6).
    pub const NONCE_INDICES: u8 = 4;
    /// Binding Authorization Data (RFC 6275 §6.2.7).
    pub const BINDING_AUTHORIZATION_DATA: u8 = 5;
    /// Mobile Network Prefix (RFC 3963 §4.3).
    pub const MOBILE_NETWORK_PREFIX: u8 = 6;
    /// Mobility Header Link-Layer Address (RFC 5568 §6.4.4).
    pub const LINK_LAYER_ADDRESS: u8 = 7;
    /// Mobile Node Identifier (RFC 4283 §3).
    pub const MOBILE_NODE_IDENTIFIER: u8 = 8;
    /// Mobility message authentication (RFC 4285 §5).
    pub const AUTHENTICATION: u8 = 9;
    /// Mobility message replay protection (RFC 4285 §6).
    pub const MESSAGE_ID: u8 = 10;
    /// Vendor Specific (RFC 5094 §3).
    pub const VENDOR_SPECIFIC: u8 = 19;
    /// Restart Counter (RFC 5847 §3.4).
    pub const RESTART_COUNTER: u8 = 28;
    /// IPv4 Home Address (RFC 5555 §3.1.1).
    pub const IPV4_HOME_ADDRESS: u8 = 29;
    /// IPv4 Address Acknowledgement (RFC 5555 §3.2.1).
    pub const IPV4_ADDRESS_ACKNOWLEDGEMENT: u8 = 30;
    /// NAT Detection (RFC 5555 §3.2.2).
    pub const NAT_DETECTION: u8 = 31;
    /// IPv4 Care-of Address (RFC 5555 §3.1.2).
    pub const IPV4_CARE_OF_ADDRESS: u8 = 32;
    /// Binding Identifier (RFC 5648 §4.3).
    pub const BINDING_IDENTIFIER: u8 = 35;
    /// Flow Summary (RFC 6089 §4.2.2).
    pub const FLOW_SUMMARY: u8 = 44;
    /// Flow Identification (RFC 6089 §4.2).
    pub const FLOW_IDENTIFICATION: u8 = 45;
}

/// Sub-options of Flow Identification (RFC 6089 §4.2.1).
pub mod flow_sub_option {
    /// Pad1 (§4.2.1.1).
    pub const PAD1: u8 = 0;
    /// PadN (§4.2.1.2).
    pub const PADN: u8 = 1;
    /// Binding Reference (§4.2.1.3).
    pub const BINDING_REFERENCE: u8 = 2;
    /// Traffic Selector (§4.2.1.4).
    pub const TRAFFIC_SELECTOR: u8 = 3;
}

/// TS Format of the Traffic Selector sub-option; 0 is reserved (RFC 6088 §3).
pub mod traffic_selector_format {
    /// IPv4 binary traffic selector (§3.1).
    pub const IPV4_BINARY: u8 = 1;
    /// IPv6 binary traffic selector (§3.2).
    pub const IPV6_BINARY: u8 = 2;
}

/// Status values of the Flow Identification option, which mean other things in a Binding
/// Acknowledgement (RFC 6089 §4.2).
pub mod flow_status {
    /// Flow binding successful.
    pub const SUCCESSFUL: u8 = 0;
    /// Administratively prohibited; the first of the refusals.
    pub const ADMINISTRATIVELY_PROHIBITED: u8 = 128;
    /// Flow binding rejected, reason unspecified.
    pub const REASON_UNSPECIFIED: u8 = 129;
    /// Flow identification mobility option malformed.
    pub const MALFORMED: u8 = 130;
    /// BID not found.
    pub const BID_NOT_FOUND: u8 = 131;
    /// FID not found.
    pub const FID_NOT_FOUND: u8 = 132;
    /// Traffic selector format not supported.
    pub const FORMAT_NOT_SUPPORTED: u8 = 133;
}

/// Our own Vendor Specific options (RFC 5094).
pub mod vendor {
    /// Vendor ID: the private enterprise number that RFC 5612 reserves for examples, until one is
    /// assigned.
    pub const ID: u32 = 32473;
    /// Sub-Type of what two ends agree on beyond RFC 6089.
    pub const FLOW_EXTENSIONS: u8 = 1;
    /// Flags of that option: the downlink follows the uplink.
    pub const REFLECT: u8 = 0x80;
    /// Flags of that option: copies carry a sequence and are removed by the receiver.
    pub const COPIES: u8 = 0x40;
    /// Flags of that option: number and digest of the flow bindings follow.
    pub const DIGEST: u8 = 0x20;
}

/// Option-Code of the Mobility Header Link-Layer Address option.
pub mod link_layer_address_code {
    /// The address of the mobile node (RFC 5568 §6.4.4).
    pub const MOBILE_NODE: u8 = 2;
}

/// Flags of the Binding Update, 16 bits at offset 8.
pub mod bu_flag {
    /// A: an acknowledgement is wanted (RFC 6275 §6.1.7).
    pub const ACKNOWLEDGE: u16 = 0x8000;
    /// H: home registration (RFC 6275 §6.1.7).
    pub const HOME: u16 = 0x4000;
    /// L: link-local address compatibility (RFC 6275 §6.1.7).
    pub const LINK_LOCAL: u16 = 0x2000;
    /// K: key management survives movement (RFC 6275 §6.1.7).
    pub const KEY_MOBILITY: u16 = 0x1000;
    /// R: the sender is a mobile router (RFC 3963 §4.1).
    pub const ROUTER: u16 = 0x0400;
    /// P: proxy registration (RFC 5213 §8.1).
    pub const PROXY: u16 = 0x0200;
    /// O: overwrite (RFC 5648 §4.2). The registry gives the same bit to the B flag of proxy
    /// registrations (RFC 6602).
    pub const OVERWRITE: u16 = 0x0040;
}

/// Flags of the Binding Acknowledgement, 8 bits at offset 7.
pub mod ba_flag {
    /// K: key management survives movement (RFC 6275 §6.1.8).
    pub const KEY_MOBILITY: u8 = 0x80;
    /// R: forwarding for the mobile router is set up (RFC 3963 §4.2).
    pub const ROUTER: u8 = 0x40;
    /// P: answers a proxy registration (RFC 5213 §8.2).
    pub const PROXY: u8 = 0x20;
}

/// Last octet of the Binding Identifier option's fixed part (RFC 5648 §4.3, RFC 6089 §4.1).
pub mod bid_flag {
    /// H: register from home and from abroad at once.
    pub const HOME: u8 = 0x80;
    /// BID-PRI, the priority of this binding.
    pub const PRIORITY: u8 = 0x7f;
}

/// Subtypes of the mobility message authentication option (RFC 4285 §5).
pub mod authentication_subtype {
    /// Between mobile node and home agent.
    pub const MN_HA: u8 = 1;
    /// Between mobile node and its AAA server.
    pub const MN_AAA: u8 = 2;
}

/// Subtypes of the Mobile Node Identifier option (RFC 4283 §3.1).
pub mod identifier_subtype {
    /// Network access identifier, `user@realm`.
    pub const NAI: u8 = 1;
}

/// ICMPv6, as far as Mobile IPv6 has messages of its own in it.
pub mod icmpv6 {
    /// Next Header value of ICMPv6 (RFC 4443 §1).
    pub const NEXT_HEADER: u8 = 58;
    /// Home Agent Address Discovery Request (RFC 6275 §6.5).
    pub const HOME_AGENT_ADDRESS_DISCOVERY_REQUEST: u8 = 144;
    /// Home Agent Address Discovery Reply (RFC 6275 §6.6).
    pub const HOME_AGENT_ADDRESS_DISCOVERY_REPLY: u8 = 145;
    /// Mobile Prefix Solicitation (RFC 6275 §6.7).
    pub const MOBILE_PREFIX_SOLICITATION: u8 = 146;
    /// Mobile Prefix Advertisement (RFC 6275 §6.8).
    pub const MOBILE_PREFIX_ADVERTISEMENT: u8 = 147;

    /// Router Solicitation (RFC 4861 §4.1).
    pub const ROUTER_SOLICITATION: u8 = 133;
    /// Router Advertisement (RFC 4861 §4.2).
    pub const ROUTER_ADVERTISEMENT: u8 = 134;
    /// Neighbour Solicitation (RFC 4861 §4.3).
    pub const NEIGHBOUR_SOLICITATION: u8 = 135;
    /// Neighbour Advertisement (RFC 4861 §4.4).
    pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

    /// Neighbour discovery options.
    pub mod option {
        /// Source Link-Layer Address (RFC 4861 §4.6.1).
        pub const SOURCE_LINK_LAYER_ADDRESS: u8 = 1;
        /// Target Link-Layer Address (RFC 4861 §4.6.1).
        pub const TARGET_LINK_LAYER_ADDRESS: u8 = 2;
        /// Prefix Information (RFC 4861 §4.6.2, RFC 6275 §7.2).
        pub const PREFIX_INFORMATION: u8 = 3;
        /// Advertisement Interval (RFC 6275 §7.3).
        pub const ADVERTISEMENT_INTERVAL: u8 = 7;
        /// Home Agent Information (RFC 6275 §7.4).
        pub const HOME_AGENT_INFORMATION: u8 = 8;
    }
}

/// Status values of the Binding Revocation Acknowledgement (RFC 5846 §5.2).
pub mod revocation {
    /// Done.
    pub const SUCCESS: u8 = 0;
    /// Done for some of those named.
    pub const PARTIAL_SUCCESS: u8 = 1;
    /// None of those named is held.
    pub const BINDING_DOES_NOT_EXIST: u8 = 128;
    /// Whoever asks may not end all of a peer's bindings.
    pub const GLOBAL_NOT_AUTHORIZED: u8 = 130;
    /// The reason given does not fit what is asked.
    pub const TRIGGER_NOT_SUPPORTED: u8 = 133;
    /// No proxy registrations here.
    pub const PROXY_NOT_SUPPORTED: u8 = 135;
}

/// Status values of the Binding Error message (RFC 6275 §6.1.9).
pub mod binding_error {
    /// Home Address option without a binding.
    pub const UNKNOWN_BINDING: u8 = 1;
    /// MH Type that the receiver does not know.
    pub const UNRECOGNIZED_TYPE: u8 = 2;
}

/// Status values of the Binding Acknowledgement and of the Binding Identifier option.
pub mod status {
    /// Binding Update accepted (RFC 6275 §6.1.8).
    pub const ACCEPTED: u8 = 0;
    /// Accepted, but prefix discovery is necessary (RFC 6275 §6.1.8).
    pub const PREFIX_DISCOVERY_NECESSARY: u8 = 1;
    /// Some of several bindings were refused; their options say which (RFC 5648 §4.4).
    pub const MCOA_NOT_COMPLETE: u8 = 4;
    /// Accepted at home; the home address must not be used for neighbour discovery (RFC 5648 §4.4).
    pub const MCOA_RETURN_HOME_WITHOUT_NDP: u8 = 5;
    /// Reason unspecified (RFC 6275 §6.1.8); the first of the refusals.
    pub const REASON_UNSPECIFIED: u8 = 128;
    /// Administratively prohibited (RFC 6275 §6.1.8).
    pub const ADMINISTRATIVELY_PROHIBITED: u8 = 129;
    /// Insufficient resources (RFC 6275 §6.1.8).
    pub const INSUFFICIENT_RESOURCES: u8 = 130;
    /// Home registration not supported (RFC 6275 §6.1.8).
    pub const HOME_REGISTRATION_NOT_SUPPORTED: u8 = 131;
    /// Not home subnet (RFC 6275 §6.1.8).
    pub const NOT_HOME_SUBNET: u8 = 132;
    /// Not home agent for this mobile node (RFC 6275 §6.1.8).
    pub const NOT_HOME_AGENT: u8 = 133;
    /// Duplicate address detection failed (RFC 6275 §6.1.8).
    pub const DUPLICATE_ADDRESS_DETECTION_FAILED: u8 = 134;
    /// Sequence number out of window (RFC 6275 §6.1.8).
    pub const SEQUENCE_OUT_OF_WINDOW: u8 = 135;
    /// Expired home nonce index (RFC 6275 §6.1.8).
    pub const EXPIRED_HOME_NONCE_INDEX: u8 = 136;
    /// Expired care-of nonce index (RFC 6275 §6.1.8).
    pub const EXPIRED_CARE_OF_NONCE_INDEX: u8 = 137;
    /// Expired nonces (RFC 6275 §6.1.8).
    pub const EXPIRED_NONCES: u8 = 138;
    /// Registration type change disallowed (RFC 6275 §6.1.8).
    pub const REGISTRATION_TYPE_CHANGE_DISALLOWED: u8 = 139;
    /// Mobile router operation not permitted (RFC 3963 §4.2).
    pub const MOBILE_ROUTER_NOT_PERMITTED: u8 = 140;
    /// Invalid prefix (RFC 3963 §4.2).
    pub const INVALID_PREFIX: u8 = 141;
    /// Not authorized for prefix (RFC 3963 §4.2).
    pub const NOT_AUTHORIZED_FOR_PREFIX: u8 = 142;
    /// Forwarding setup failed (RFC 3963 §4.2).
    pub const FORWARDING_SETUP_FAILED: u8 = 143;
    /// MIPV6-ID-MISMATCH: the timestamp is not acceptable (RFC 4285 §8).
    pub const ID_MISMATCH: u8 = 144;
    /// MIPV6-MESG-ID-REQD: the replay protection option is missing (RFC 4285 §8).
    pub const MESSAGE_ID_REQUIRED: u8 = 145;
    /// MIPV6-AUTH-FAIL: the authentication data is wrong (RFC 4285 §8).
    pub const AUTHENTICATION_FAILED: u8 = 146;
    /// PROXY_REG_NOT_ENABLED: no local mobility anchor here (RFC 5213 §8.9).
    pub const PROXY_REGISTRATION_NOT_ENABLED: u8 = 152;
    /// MCOA MALFORMED (RFC 5648 §4.4).
    pub const MCOA_MALFORMED: u8 = 164;
    /// MCOA NON-MCOA BINDING EXISTS (RFC 5648 §4.4).
    pub const MCOA_NON_MCOA_BINDING_EXISTS: u8 = 165;
    /// MCOA PROHIBITED (RFC 5648 §4.4).
    pub const MCOA_PROHIBITED: u8 = 166;
    /// MCOA UNKNOWN COA (RFC 5648 §4.4).
    pub const MCOA_UNKNOWN_COA: u8 = 167;
    /// MCOA BULK REGISTRATION PROHIBITED (RFC 5648 §4.4).
    pub const MCOA_BULK_PROHIBITED: u8 = 168;
    /// MCOA SIMULTANEOUS HOME AND FOREIGN PROHIBITED (RFC 5648 §4.4).
    pub const MCOA_SIMULTANEOUS_HOME_AND_FOREIGN_PROHIBITED: u8 = 169;
    /// Invalid care-of address (RFC 6275 §6.1.8).
    pub const INVALID_CARE_OF_ADDRESS: u8 = 174;
}
