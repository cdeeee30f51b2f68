//! Figures for Prometheus.

mod input;

pub use input::{
    BindingFigures, BindingUpdateFigures, Direction, DropFigures, FlowFigures, FlowMoveFigures,
    HomeFigures, LinkFigures, LinkStateFigures, MetricsInput, RuleFigures, TunnelFigures,
};
