/// A regular expression's number in its arena. Equal expressions have equal numbers.
package typealias RegexID = Int32

/// What an expression is made of. Operands are numbers of earlier expressions.
package enum RegexNode: Hashable, Sendable {
    case empty
    case epsilon
    case set(CodePointSet)
    case concat(RegexID, RegexID)
    case or([RegexID])
    case and([RegexID])
    case not(RegexID)
    case `repeat`(RegexID, min: Int32, max: Int32)
    case magnitude(MagnitudeState)
    case multiple(MultipleState)
}

extension RegexNode {
    /// One mix of all parts: nodes are looked up far more often than anything else.
    package func hash(into hasher: inout Hasher) {
        var mixed: UInt64
        func mix(_ value: UInt64) {
            mixed = (mixed ^ value) &* 0x9E37_79B9_7F4A_7C15
            mixed ^= mixed >> 29
        }
        func mix(_ id: RegexID) { mix(UInt64(UInt32(bitPattern: id))) }
        mixed = 1
        switch self {
        case .empty: mix(UInt64(1))
        case .epsilon: mix(UInt64(2))
        case .set(let set):
            mix(UInt64(3))
            for range in set.ranges { mix(UInt64(range.low) << 32 | UInt64(range.high)) }
        case .concat(let a, let b): mix(UInt64(UInt32(bitPattern: a)) << 32 | UInt64(UInt32(bitPattern: b)))
        case .or(let list):
            mix(UInt64(5))
            for id in list { mix(id) }
        case .and(let list):
            mix(UInt64(6))
            for id in list { mix(id) }
        case .not(let a):
            mix(UInt64(7))
            mix(a)
        case .repeat(let a, let min, let max):
            mix(UInt64(8) << 32 | UInt64(UInt32(bitPattern: a)))
            mix(UInt64(UInt32(bitPattern: min)) << 32 | UInt64(UInt32(bitPattern: max)))
        case .magnitude(let state): mix(UInt64(bitPattern: Int64(state.hashValue)))
        case .multiple(let state): mix(UInt64(bitPattern: Int64(state.hashValue)))
        }
        hasher.combine(mixed)
    }
}

/// Hash-consed regular expressions over Unicode scalars, with intersection and complement.
///
/// The constructors simplify, so that an expression without intersections, complements and arithmetic is empty only if
/// it is `RegexArena.empty`. Derivatives (Brzozowski 1964; Owens, Reppy and Turon 2009) are computed for all scalars at
/// once, as a partition of the code points, and kept.
package struct RegexArena {
    package static let empty: RegexID = 0
    package static let epsilon: RegexID = 1
    /// Any one scalar.
    package static let anyScalar: RegexID = 2
    /// Any text.
    package static let anything: RegexID = 3
    /// No upper bound of a repetition.
    package static let unbounded = Int32.max

    package private(set) var nodes: [RegexNode] = []
    private var nullability: [Bool] = []
    /// Whether an expression is free of what can be empty without showing it.
    private var plainness: [Bool] = []
    private var numbers: [RegexNode: RegexID] = [:]
    var partitions: [[PartitionEntry]?] = []
    var liveness: [Liveness] = []
    /// A search for liveness gave up: the answer "live" was a guess.
    var guessedLiveness = false
    /// While a constraint compiles: when to stop. Searches look at the clock now and then.
    var deadline: ContinuousClock.Instant?
    private(set) var isOutOfTime = false
    private var clockTicks = 0
    /// Derivatives that were combined so far: what computing partitions costs.
    var combinations = 0

    package init() {
        for node in [
            .empty, .epsilon, .set(.all), .repeat(Self.anyScalar, min: 0, max: Self.unbounded),
        ] as [RegexNode] {
            _ = intern(node)
        }
    }

    /// Expressions, and what their lists hold: long lists count by their memory.
    package var count: Int { nodes.count + listed / 16 }
    private var listed = 0

    mutating func watchClock() {
        clockTicks &+= 1
        if clockTicks & 63 == 0, let deadline, ContinuousClock.now > deadline { isOutOfTime = true }
    }

    @inline(__always) package func isNullable(_ id: RegexID) -> Bool { nullability[Int(id)] }
    @inline(__always) func isPlain(_ id: RegexID) -> Bool { plainness[Int(id)] }

    private mutating func intern(_ node: RegexNode) -> RegexID {
        if let known = numbers[node] { return known }
        let id = RegexID(nodes.count)
        nodes.append(node)
        switch node {
        case .or(let list), .and(let list): listed += list.count
        default: break
        }
        numbers[node] = id
        nullability.append(computeNullability(node))
        plainness.append(computePlainness(node))
        partitions.append(nil)
        liveness.append(.unknown)
        return id
    }

    private func computeNullability(_ node: RegexNode) -> Bool {
        switch node {
        case .empty, .set: false
        case .epsilon: true
        case .concat(let a, let b): isNullable(a) && isNullable(b)
        case .or(let list): list.contains { isNullable($0) }
        case .and(let list): list.allSatisfy { isNullable($0) }
        case .not(let a): !isNullable(a)
        case .repeat(let a, let min, _): min == 0 || isNullable(a)
        case .magnitude(let state): state.accepts
        case .multiple(let state): state.accepts
        }
    }

    private func computePlainness(_ node: RegexNode) -> Bool {
        switch node {
        case .empty, .epsilon, .set: true
        case .concat(let a, let b): isPlain(a) && isPlain(b)
        case .or(let list): list.allSatisfy { isPlain($0) }
        case .repeat(let a, _, _): isPlain(a)
        case .and, .not, .magnitude, .multiple: false
        }
    }

    // MARK: Constructors

    package mutating func set(_ set: CodePointSet) -> RegexID {
        set.isEmpty ? Self.empty : intern(.set(set))
    }

    package mutating func scalar(_ value: UInt32) -> RegexID { intern(.set(CodePointSet(value))) }

    package mutating func magnitude(_ state: MagnitudeState) -> RegexID { intern(.magnitude(state)) }

    package mutating func multiple(_ state: MultipleState) -> RegexID { intern(.multiple(state)) }

    package mutating func concat(_ a: RegexID, _ b: RegexID) -> RegexID {
        if a == Self.empty || b == Self.empty { return Self.empty }
        if a == Self.epsilon { return b }
        if b == Self.epsilon { return a }
        if case .concat = nodes[Int(a)] {
            var heads: [RegexID] = []
            var rest = a
            while case .concat(let head, let tail) = nodes[Int(rest)] {
                heads.append(head)
                rest = tail
            }
            var result = concat(rest, b)
            for head in heads.reversed() { result = concat(head, result) }
            return result
        }
        if case .repeat(_, 0, Self.unbounded) = nodes[Int(a)] {
            if a == b { return a }
            if case .concat(a, _) = nodes[Int(b)] { return b }
        }
        return intern(.concat(a, b))
    }

    package mutating func concat(_ parts: [RegexID]) -> RegexID {
        var result = Self.epsilon
        for part in parts.reversed() { result = concat(part, result) }
        return result
    }

    package mutating func `repeat`(_ a: RegexID, min: Int32, max: Int32) -> RegexID {
        if max == 0 || a == Self.epsilon { return Self.epsilon }
        if a == Self.empty { return min == 0 ? Self.epsilon : Self.empty }
        if min == 1 && max == 1 { return a }
        if case .repeat(let inner, 0, Self.unbounded) = nodes[Int(a)] {
            return intern(.repeat(inner, min: 0, max: Self.unbounded))
        }
        return intern(.repeat(a, min: isNullable(a) ? 0 : min, max: max))
    }

    package mutating func star(_ a: RegexID) -> RegexID { self.repeat(a, min: 0, max: Self.unbounded) }

    package mutating func optional(_ a: RegexID) -> RegexID { self.repeat(a, min: 0, max: 1) }

    package mutating func or(_ a: RegexID, _ b: RegexID) -> RegexID {
        if a == b || b == Self.empty { return a }
        if a == Self.empty { return b }
        return or([a, b])
    }

    package mutating func or(_ parts: [RegexID]) -> RegexID {
        var flat: [RegexID] = []
        flat.reserveCapacity(parts.count)
        var united: CodePointSet?
        for part in parts {
            if case .or(let inner) = nodes[Int(part)] {
                for piece in inner { appendAlternative(piece, to: &flat, united: &united) }
            } else {
                appendAlternative(part, to: &flat, united: &united)
            }
        }
        if flat.contains(Self.anything) { return Self.anything }
        if let united { flat.append(set(united)) }
        sortUnique(&flat)
        if flat.isEmpty { return Self.empty }
        return flat.count == 1 ? flat[0] : intern(.or(flat))
    }

    private func appendAlternative(_ piece: RegexID, to flat: inout [RegexID], united: inout CodePointSet?) {
        switch nodes[Int(piece)] {
        case .empty: break
        case .set(let scalars): united = united.map { $0.union(scalars) } ?? scalars
        default: flat.append(piece)
        }
    }

    package mutating func and(_ a: RegexID, _ b: RegexID) -> RegexID {
        if a == b || b == Self.anything { return a }
        if a == Self.anything { return b }
        return a == Self.empty || b == Self.empty ? Self.empty : and([a, b])
    }

    package mutating func and(_ parts: [RegexID]) -> RegexID {
        var flat: [RegexID] = []
        var common: CodePointSet?
        for part in parts {
            var pieces = [part]
            if case .and(let inner) = nodes[Int(part)] { pieces = inner }
            for piece in pieces where piece != Self.anything {
                if piece == Self.empty { return Self.empty }
                if case .set(let scalars) = nodes[Int(piece)] {
                    common = common.map { $0.intersection(scalars) } ?? scalars
                } else {
                    flat.append(piece)
                }
            }
        }
        if let common {
            if common.isEmpty { return Self.empty }
            flat.append(set(common))
        }
        sortUnique(&flat)
        if flat.isEmpty { return Self.anything }
        if flat.count == 1 { return flat[0] }
        if flat[0] == Self.epsilon { return flat.allSatisfy { isNullable($0) } ? Self.epsilon : Self.empty }
        for piece in flat {
            if case .not(let inner) = nodes[Int(piece)], flat.contains(inner) { return Self.empty }
        }
        return intern(.and(flat))
    }

    package mutating func not(_ a: RegexID) -> RegexID {
        if a == Self.empty { return Self.anything }
        if a == Self.anything { return Self.empty }
        if case .not(let inner) = nodes[Int(a)] { return inner }
        return intern(.not(a))
    }

    private func sortUnique(_ list: inout [RegexID]) {
        guard list.count > 1 else { return }
        list.sort()
        var kept = 1
        for index in 1..<list.count where list[index] != list[kept - 1] {
            list[kept] = list[index]
            kept += 1
        }
        list.removeLast(list.count - kept)
    }

    // MARK: Texts

    package mutating func literal(_ scalars: some BidirectionalCollection<UInt32>) -> RegexID {
        var result = Self.epsilon
        for value in scalars.reversed() { result = concat(scalar(value), result) }
        return result
    }

    package mutating func literal(_ text: String) -> RegexID { literal(text.unicodeScalars.map(\.value)) }

    /// One of `texts`, factored into a trie: derivatives of a thousand texts stay cheap.
    package mutating func literals(_ texts: [String]) -> RegexID {
        // Sets of strings would take texts for equal that are so only to Unicode.
        let sorted = Set(texts.map { $0.unicodeScalars.map(\.value) }).sorted { $0.lexicographicallyPrecedes($1) }
        return trie(sorted[...], depth: 0)
    }

    private mutating func trie(_ texts: ArraySlice<[UInt32]>, depth: Int) -> RegexID {
        guard texts.count > 1 else { return texts.first.map { literal($0[depth...]) } ?? Self.empty }
        var branches: [RegexID] = []
        var start = texts.startIndex
        if texts[start].count == depth {
            branches.append(Self.epsilon)
            start += 1
        }
        while start < texts.endIndex {
            let head = texts[start][depth]
            var end = start + 1
            while end < texts.endIndex && texts[end][depth] == head { end += 1 }
            // A long common stem is written at once: recursion is as deep as the branching, not as the texts.
            var stem = depth + 1
            let first = texts[start]
            let final = texts[end - 1]
            while end - start > 1 && stem < first.count && stem < final.count && first[stem] == final[stem] {
                stem += 1
            }
            if end - start == 1 { stem = first.count }
            let tail = end - start == 1 ? Self.epsilon : trie(texts[start..<end], depth: stem)
            var branch = tail
            for value in first[depth..<stem].reversed() { branch = concat(scalar(value), branch) }
            branches.append(branch)
            start = end
        }
        return or(branches)
    }
}
