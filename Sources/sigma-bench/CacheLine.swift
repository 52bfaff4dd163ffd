import Sigma

/// What the simulator says for every size of the expert cache: the trace's hit rates, the disk's speed, and the time of a token without waits.
struct CacheLine {
    /// Tokens that are routed for it: the reuse distances of 5,000 experts need many.
    static let tokenCount = 512
    let recordBytes: Int
    let computeTime: Double
    let diskBandwidth: Double
    private let choicesPerToken: Int
    private let recordCount: Int
    private var reuse: ReuseDistances
    private let configuration: ModelConfiguration

    init(_ model: ModelFile, computeTime: Double, diskBandwidth: Double) {
        let table = ExpertRecordTable(model)
        recordBytes = table.slotBytes
        recordCount = table.presentCount
        choicesPerToken = table.recordsPerToken
        self.computeTime = computeTime
        self.diskBandwidth = diskBandwidth
        configuration = model.configuration
        reuse = ReuseDistances(itemCount: table.recordCount)
    }

    mutating func add(_ routed: RoutedTokens) {
        for row in routed.rows {
            for (layer, choices) in configuration.expertsPerToken.enumerated() {
                for choice in 0..<choices {
                    reuse.access(
                        layer * configuration.expertCount + routed.record.chosen(row: row, layer: layer, choice: choice)
                    )
                }
            }
        }
    }

    /// Tokens per second with an LRU cache of so many bytes, once it is full: first uses are not counted.
    func speed(cacheBytes: Int) -> Double {
        let slots = min(cacheBytes / recordBytes, reuse.counts.count)
        let counted = Double(reuse.accesses - reuse.firstUses)
        let hits = Double(reuse.counts[..<max(0, slots)].reduce(0, +))
        let missRate = slots >= recordCount || counted == 0 ? 0 : 1 - hits / counted
        return 1 / (computeTime + missRate * Double(choicesPerToken * recordBytes) / diskBandwidth)
    }

    /// Points between two sizes of the cache, in bytes.
    func points(from first: Int, to last: Int) -> [(x: Double, y: Double)] {
        (0...48).map { step in
            let bytes = first + (last - first) / 48 * step
            return (Double(bytes) / 0x1p30, speed(cacheBytes: bytes))
        }
    }
}
