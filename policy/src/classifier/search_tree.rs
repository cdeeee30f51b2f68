//! A sorted array cut into cache lines, searched from the top down without a branch per key.

/// Keys of one node. Eight addresses are two cache lines that the processor fetches as a pair;
/// eight numbers are one.
const WIDTH: usize = 8;

#[derive(Clone, Debug)]
#[repr(align(64))]
struct Node<K>([K; WIDTH]);

/// One level of the tree: where its nodes begin, and how many entries the level beneath it has.
#[derive(Clone, Copy, Debug)]
struct Layer {
    from: usize,
    last_entry: usize,
}

/// Finds the interval that a value lies in; the intervals are given by their first values.
#[derive(Clone, Debug)]
pub(super) struct SearchTree<K> {
    nodes: Vec<Node<K>>,
    /// The root first.
    layers: Vec<Layer>,
}

impl<K: Copy + Ord> SearchTree<K> {
    /// `starts` ascend, there is at least one, and the first is not above any value asked for.
    pub(super) fn new(starts: &[K]) -> Self {
        let mut levels = vec![starts.to_vec()];
        while let Some(lowest) = levels.last().filter(|level| level.len() > WIDTH) {
            levels.push(lowest.chunks(WIDTH).map(|node| node[0]).collect());
        }
        let (mut nodes, mut layers) = (Vec::new(), Vec::new());
        for level in levels.iter().rev() {
            layers.push(Layer { from: nodes.len(), last_entry: level.len() - 1 });
            nodes.extend(level.chunks(WIDTH).map(|keys| {
                // Filled up with its last key: what is found beyond it is led back below.
                Node(std::array::from_fn(|at| keys[at.min(keys.len() - 1)]))
            }));
        }
        Self { nodes, layers }
    }

    /// Octets of memory that it takes.
    pub(super) fn octets(&self) -> usize {
        size_of_val(&self.nodes[..]) + size_of_val(&self.layers[..])
    }

    /// The place of the last start that is not above `value`.
    #[inline]
    pub(super) fn find(&self, value: K) -> usize {
        let mut at = 0;
        for layer in &self.layers {
            let keys = &self.nodes[layer.from + at].0;
            let below = keys[1..].iter().map(|key| usize::from(*key <= value)).sum::<usize>();
            at = (at * WIDTH + below).min(layer.last_entry);
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_found_in_its_interval() {
        for count in [1_u32, 2, 7, 8, 9, 63, 64, 65, 100, 511, 512, 513, 5000] {
            let starts: Vec<u32> = (0..count).map(|number| number * 3).collect();
            let tree = SearchTree::new(&starts);
            for value in 0..count * 3 + 5 {
                let want = starts.partition_point(|start| *start <= value) - 1;
                assert_eq!(tree.find(value), want, "{value} of {count}");
            }
            assert_eq!(tree.find(u32::MAX), count as usize - 1);
        }
    }
}
