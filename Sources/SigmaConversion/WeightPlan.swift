import Sigma

/// Which tensor of the model file comes from where, and as what type: the whole conversion of weights before any is read.
package struct WeightPlan: Sendable {
    package enum Content: Sendable {
        /// `rows` rows of `columns` weights; a vector is one row.
        case rows(any MatrixSource, rows: Int, columns: Int, type: WeightType, isVector: Bool)
        /// One record for each expert.
        case experts([Expert], ExpertLayout)
        /// The screening planes of the output head: `screenedHead`'s.
        case screen(ScreenPart)
    }

    package enum ScreenPart: Sendable { case mean, coarse, fine }

    package struct Expert: Sendable {
        package let gate: any MatrixSource
        package let up: any MatrixSource
        package let down: any MatrixSource

        package init(gate: any MatrixSource, up: any MatrixSource, down: any MatrixSource) {
            self.gate = gate
            self.up = up
            self.down = down
        }
    }

    package struct Output: Sendable {
        package let name: String
        package let content: Content

        package init(name: String, content: Content) {
            self.name = name
            self.content = content
        }
    }

    /// Weights that have one type: a matrix, or the same matrix of every expert in a layer.
    package struct Part: Sendable {
        /// Of its tensor in a plain file: `blk.3.ffn_down_exps.weight`.
        package let name: String
        /// One for each matrix, as the sources.
        package let roles: [WeightRole]
        package let matrices: [any MatrixSource]
        package let rows: Int
        package let columns: Int
        package let type: WeightType

        package var weightCount: Int { matrices.count * rows * columns }
        /// In a native model file, without what fills records up to whole pages.
        package func byteCount(_ type: WeightType) -> Int {
            matrices.count * type.matrixBytes(rows: rows, columns: columns)
        }
    }

    package private(set) var outputs: [Output] = []
    /// All weights but norms, biases and routers, in the order of the outputs.
    package private(set) var parts: [Part] = []
    /// One for each layer; nil where there are no experts.
    package private(set) var expertLayouts: [ExpertLayout?] = []
    package private(set) var warnings: [String] = []
    /// The head that gets planes; nil: none does.
    private(set) var screenedHead: ScreenedHead?

    private let sources: any WeightSources
    private let configuration: ModelConfiguration
    private let choice: TypeChoice
    private var used: Set<WeightRole> = []
    /// Names of tensors whose rows the wanted type's block doesn't divide, layers as `*`, and what they became.
    private var fallbacks: [(name: String, columns: Int, wanted: WeightType, type: WeightType)] = []
    /// Types of tensors that are quantized already and were to be something else.
    private var kept: Set<WeightType> = []

    /// - Parameters:
    ///   - choice: the types.
    ///   - ignoresUnknown: whether tensors that have no place in the model are left out with a warning.
    ///   - headScreening: whether the output head gets planes.
    /// - Throws: `SigmaError`: `.damaged` naming the tensor that is missing, has another shape or type, or has no place; `.usage` if planes are
    ///   asked for that the head cannot have, or a rule of the choice matches no tensor.
    package init(
        _ sources: any WeightSources, _ configuration: ModelConfiguration, types choice: TypeChoice = TypeChoice(),
        ignoresUnknown: Bool = false, headScreening: HeadScreening = .off
    ) throws {
        self.sources = sources
        self.configuration = configuration
        self.choice = choice
        let c = configuration
        try addMatrix(.embedding, c.vocabularySize, c.hiddenSize, isHead: c.tiedEmbeddings)
        for layer in 0..<c.layerCount { try addLayer(layer) }
        try addVector(.finalNorm, c.hiddenSize)
        if !c.tiedEmbeddings { try addMatrix(.head, c.vocabularySize, c.hiddenSize, isHead: true) }
        try checkRules()
        try addScreen(headScreening)
        try checkLeftovers(ignoresUnknown: ignoresUnknown)
        let groups = Dictionary(grouping: fallbacks) { "\($0.wanted)'s blocks don't divide are \($0.type)" }
        for (what, group) in groups.sorted(by: { $0.key < $1.key }) {
            let list = group.map { "\($0.name) (\($0.columns) columns)" }.joined(separator: ", ")
            warnings.append("rows that \(what): \(list)")
        }
        if !kept.isEmpty {
            let names = kept.map(\.name).sorted().joined(separator: ", ")
            warnings.append("weights that are quantized already stay as they are (\(names))")
        }
        addCosts()
    }

    /// Says what some types cost here: CUDA, and bytes where blocks are copied.
    private mutating func addCosts() {
        var types: Set<WeightType> = []
        var copied: Set<WeightType> = []
        func add(_ source: any MatrixSource, _ type: WeightType) {
            types.insert(type)
            if source.type == type { copied.insert(type) }
        }
        for output in outputs {
            switch output.content {
            case .rows(let source, _, _, let type, _): add(source, type)
            case .experts(let experts, let layout):
                add(experts[0].gate, layout.gateType)
                add(experts[0].up, layout.upType)
                add(experts[0].down, layout.downType)
            case .screen: break
            }
        }
        let foreign = types.filter { !$0.hasCUDAKernels }.sorted { $0.rawValue < $1.rawValue }
        guard !foreign.isEmpty else { return }
        let names = foreign.map(\.name).joined(separator: ", ")
        warnings.append("there are no CUDA kernels for weights of type \(names): this model runs on the CPU")
        for type in foreign where copied.contains(type) {
            // Of 256 columns, without what fills the group up.
            let growth = 100 * Double(type.groupBytes(1 << 16)) / Double(type.groupRows * type.rowBytes(1 << 16)) - 100
            guard growth >= 1 else { continue }
            let percent = Double(Int((growth * 10).rounded())) / 10
            warnings.append("\(type.name) weights take \(percent) % more bytes here than in the file")
        }
    }

    private mutating func addLayer(_ layer: Int) throws {
        let c = configuration
        expertLayouts.append(nil)
        try addVector(.layer(layer, .attentionNorm), c.hiddenSize)
        for part in WeightRole.AttentionPart.allCases {
            let (rows, columns) =
                switch part {
                case .query: (c.queryWidth, c.hiddenSize)
                case .key, .value: (c.kvWidth, c.hiddenSize)
                case .output: (c.hiddenSize, c.queryWidth)
                }
            try addMatrix(.layer(layer, .attention(part)), rows, columns)
            try addOptionalVector(.layer(layer, .attentionBias(part)), rows)
        }
        if c.qkNorm {
            try addVector(.layer(layer, .queryNorm), c.headDim)
            try addVector(.layer(layer, .keyNorm), c.headDim)
        }
        try addVector(.layer(layer, .feedForwardNorm), c.hiddenSize)
        if c.isDense(layer: layer) {
            return try addMLP(intermediate: c.denseIntermediateSize) { .layer(layer, .dense($0)) }
        }
        let router = try take(.layer(layer, .router), c.expertCount, c.hiddenSize)
        add(.layer(layer, .router), router, c.expertCount, c.hiddenSize, router.type)
        try addOptionalVector(.layer(layer, .selectionBias), c.expertCount)
        try addExperts(layer)
        if c.sharedExpertCount > 0 {
            try addMLP(intermediate: c.sharedIntermediateSize) { .layer(layer, .shared($0)) }
        }
    }

    private mutating func addExperts(_ layer: Int) throws {
        let c = configuration
        var experts: [Expert] = []
        experts.reserveCapacity(c.expertCount)
        for expert in 0..<c.expertCount {
            func role(_ part: WeightRole.MLPPart) -> WeightRole { .expert(layer: layer, expert, part) }
            experts.append(
                Expert(
                    gate: try take(role(.gate), c.expertIntermediateSize, c.hiddenSize),
                    up: try take(role(.up), c.expertIntermediateSize, c.hiddenSize),
                    down: try take(role(.down), c.hiddenSize, c.expertIntermediateSize)))
        }
        func type(_ part: WeightRole.MLPPart, _ source: KeyPath<Expert, any MatrixSource>) -> WeightType {
            let (rows, columns) =
                part == .down
                ? (c.hiddenSize, c.expertIntermediateSize) : (c.expertIntermediateSize, c.hiddenSize)
            return addPart(
                (0..<c.expertCount).map { .expert(layer: layer, $0, part) }, experts.map { $0[keyPath: source] }, rows,
                columns)
        }
        let layout = ExpertLayout(
            hidden: c.hiddenSize, intermediate: c.expertIntermediateSize, gateType: type(.gate, \.gate),
            upType: type(.up, \.up), downType: type(.down, \.down))
        expertLayouts[layer] = layout
        outputs.append(
            Output(name: ModelFileFormat.layer(layer, ModelFileFormat.experts), content: .experts(experts, layout)))
    }

    private mutating func addScreen(_ screening: HeadScreening) throws {
        let name = configuration.tiedEmbeddings ? ModelFileFormat.embedding : ModelFileFormat.head
        guard
            case .rows(let source, let rows, let columns, let type, _)? = outputs.first(where: { $0.name == name })?
                .content,
            try screening.adds(headBytes: type.matrixBytes(rows: rows, columns: columns), hidden: columns)
        else { return }
        screenedHead = ScreenedHead(source: source, rows: rows, columns: columns, type: type)
        outputs += [
            Output(name: ModelFileFormat.screenMean, content: .screen(.mean)),
            Output(name: ModelFileFormat.screenCoarse, content: .screen(.coarse)),
            Output(name: ModelFileFormat.screenFine, content: .screen(.fine)),
        ]
    }

    private mutating func addMLP(intermediate: Int, _ role: (WeightRole.MLPPart) -> WeightRole) throws {
        let hidden = configuration.hiddenSize
        try addMatrix(role(.gate), intermediate, hidden)
        try addMatrix(role(.up), intermediate, hidden)
        try addMatrix(role(.down), hidden, intermediate)
    }

    private mutating func addMatrix(
        _ role: WeightRole, _ rows: Int, _ columns: Int, isHead: Bool = false
    ) throws {
        let source = try take(role, rows, columns)
        add(role, source, rows, columns, addPart([role], [source], rows, columns, isHead: isHead))
    }

    /// Adds weights that have one type. The first matrix's type decides what is kept and what a fallback is.
    ///
    /// - Returns: their type in the file.
    private mutating func addPart(
        _ roles: [WeightRole], _ matrices: [any MatrixSource], _ rows: Int, _ columns: Int, isHead: Bool = false
    ) -> WeightType {
        let name = ModelFileFormat.name(roles[0])
        let type = fitting(name, matrices[0], columns, choice.type(of: name, isHead: isHead))
        parts.append(
            Part(name: name, roles: roles, matrices: matrices, rows: rows, columns: columns, type: type))
        return type
    }

    private func checkRules() throws {
        for rule in choice.rules where !parts.contains(where: { rule.matches($0.name) }) {
            let first = parts.first { $0.name.hasPrefix("blk.") } ?? parts[0]
            throw SigmaError(
                .usage, "no tensor is called '\(rule.pattern)'",
                remedy: "Names are those of llama.cpp, like \(first.name), and * stands for any characters.")
        }
    }

    /// A norm or a bias: its own precision.
    private mutating func addVector(_ role: WeightRole, _ count: Int) throws {
        let source = try take(role, 1, count)
        add(role, source, 1, count, source.type)
    }

    private mutating func addOptionalVector(_ role: WeightRole, _ count: Int) throws {
        guard let source = try sources.find(role, rows: 1, columns: count) else { return }
        used.insert(role)
        add(role, source, 1, count, source.type)
    }

    private mutating func add(
        _ role: WeightRole, _ source: any MatrixSource, _ rows: Int, _ columns: Int, _ type: WeightType
    ) {
        outputs.append(
            Output(
                name: ModelFileFormat.name(role),
                content: .rows(source, rows: rows, columns: columns, type: type, isVector: role.isVector)))
    }

    private mutating func take(_ role: WeightRole, _ rows: Int, _ columns: Int) throws -> any MatrixSource {
        guard let source = try sources.find(role, rows: rows, columns: columns) else { throw sources.missing(role) }
        used.insert(role)
        return source
    }

    /// `wanted` (or the source's own type), or q8_0, or a float type, where the blocks don't divide a row. What is quantized stays, or becomes f32,
    /// which holds the same numbers.
    private mutating func fitting(
        _ name: String, _ source: any MatrixSource, _ columns: Int, _ wanted: WeightType?
    ) -> WeightType {
        let wanted = wanted ?? source.type
        if source.type.isQuantized {
            if wanted == .f32 { return .f32 }
            if wanted != source.type { kept.insert(source.type) }
            return source.type
        }
        if columns % wanted.blockLength == 0 { return wanted }
        let type: WeightType = columns % WeightType.q8_0.blockLength == 0 ? .q8_0 : source.type == .f32 ? .f32 : .bf16
        let words = name.split(separator: ".")
        let pattern = (words.first == "blk" ? ["blk", "*"] + words.dropFirst(2) : words).joined(separator: ".")
        if !fallbacks.contains(where: { $0.name == pattern && $0.wanted == wanted && $0.type == type }) {
            fallbacks.append((pattern, columns, wanted, type))
        }
        return type
    }

    /// Tensors that nothing asked for mean that the model computes something that we would leave out.
    private mutating func checkLeftovers(ignoresUnknown: Bool) throws {
        let leftovers = sources.leftovers(used, of: configuration)
        warnings += leftovers.warnings
        guard let first = leftovers.unknown.first else { return }
        var list = leftovers.unknown.prefix(4).joined(separator: ", ")
        if leftovers.unknown.count > 4 { list += ", ... (\(leftovers.unknown.count) in all)" }
        guard ignoresUnknown else {
            throw SigmaError(
                .damaged, "tensors that this model has no place for: \(list)", path: leftovers.path, item: first,
                remedy: "To leave them out: --override unknown_tensors=ignore")
        }
        warnings.append("tensors without a place in the model are left out: \(list)")
    }
}
