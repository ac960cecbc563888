use std::collections::{BTreeMap, BTreeSet};

/// A vertex of a particular graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VertexId(usize);

impl VertexId {
    /// The vertex's place in the order of addition.
    pub fn index(self) -> usize {
        self.0
    }
}

/// One step: an operation on the results of others.
#[derive(Clone, Debug)]
pub struct Vertex<O> {
    /// What to do; the worker knows what it means.
    pub op: O,
    /// The vertices whose results it is done on.
    pub inputs: Vec<VertexId>,
    /// Where it stands in its source, to find its earlier results.
    pub site: Site,
    /// How it may use the cache.
    pub cache: CachePolicy,
}

/// Where a step stands, independent of what it says: two builds of one source agree on it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Site {
    /// Source and position, such as `/home/me/app/Dockerfile stage 0 step 3`.
    pub position: String,
    /// The text of the step.
    pub instruction: String,
}

/// How a vertex may use the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CachePolicy {
    /// Take a cached result if there is one.
    Use,
    /// Run even so, and replace the cached result.
    Refresh,
    /// Always ask the worker, which has a quicker way to know; nothing is recorded.
    Bypass,
}

/// Steps and what they need. Inputs are added before what uses them, so a cycle cannot be written down.
#[derive(Clone, Debug)]
pub struct Graph<O> {
    vertices: Vec<Vertex<O>>,
}

impl<O> Default for Graph<O> {
    fn default() -> Graph<O> {
        Graph { vertices: Vec::new() }
    }
}

impl<O> Graph<O> {
    /// An empty graph.
    pub fn new() -> Graph<O> {
        Graph::default()
    }

    /// Adds a vertex.
    ///
    /// # Panics
    /// If an input is of another graph, and so not added yet.
    pub fn add(&mut self, vertex: Vertex<O>) -> VertexId {
        let id = VertexId(self.vertices.len());
        assert!(vertex.inputs.iter().all(|input| *input < id), "inputs are added before what uses them");
        self.vertices.push(vertex);
        id
    }

    /// A vertex by its id.
    pub fn vertex(&self, id: VertexId) -> &Vertex<O> {
        &self.vertices[id.0]
    }

    /// How many vertices there are.
    pub fn len(&self) -> usize {
        self.vertices.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.vertices.is_empty()
    }

    /// The most vertices of `among` that can ever run at the same time, or more.
    pub(crate) fn width_max(&self, among: &BTreeSet<VertexId>) -> usize {
        let starts = among.iter().filter(|id| self.vertex(**id).inputs.is_empty()).count();
        let mut users: BTreeMap<VertexId, usize> = BTreeMap::new();
        for input in among.iter().flat_map(|id| self.vertex(*id).inputs.iter().collect::<BTreeSet<_>>()) {
            *users.entry(*input).or_default() += 1;
        }
        // Every further user of a vertex may run beside the first.
        starts + users.values().map(|users| users - 1).sum::<usize>()
    }

    /// `target` and everything it needs, in an order in which they could run.
    pub fn needed(&self, target: VertexId) -> BTreeSet<VertexId> {
        let mut needed = BTreeSet::new();
        let mut open = vec![target];
        while let Some(id) = open.pop() {
            if needed.insert(id) {
                open.extend(&self.vertex(id).inputs);
            }
        }
        needed
    }
}
