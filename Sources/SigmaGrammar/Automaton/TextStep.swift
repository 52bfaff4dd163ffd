/// Steps of a thread through a text's bytes: UTF-8, and JSON's escapes.
extension RegexArena {
    /// The thread after `byte`; nil if no text continues with it. The quotation mark that ends a string is not handled here.
    mutating func advance(_ thread: Thread, by byte: UInt8) -> Thread? {
        switch thread.pending {
        case .none: return start(thread, byte)
        case .bytes:
            guard 0x80...0xBF ~= byte else { return nil }
            let shift = 6 * UInt32(thread.left - 1)
            let prefix = (thread.low >> (shift + 6)) << (shift + 6) | UInt32(byte & 0x3F) << shift
            return bytes(thread, left: thread.left - 1, prefix, prefix | (1 << shift - 1))
        case .uniformBytes:
            guard 0x80...0xBF ~= byte else { return nil }
            return uniform(thread)
        case .escape: return escaped(thread, byte)
        case .digits:
            guard let digit = Self.hexValue(byte) else { return nil }
            let shift = 4 * UInt32(thread.left - 1)
            let prefix = (thread.low >> (shift + 4)) << (shift + 4) | digit << shift
            return digits(thread, left: thread.left - 1, prefix, prefix | (1 << shift - 1))
        case .uniformDigits:
            guard Self.hexValue(byte) != nil else { return nil }
            return uniform(thread)
        case .lowEscape: return byte == UInt8(ascii: "\\") ? thread.with(.lowLetter) : nil
        case .lowLetter: return byte == UInt8(ascii: "u") ? thread.with(.lowDigits, left: 4) : nil
        case .lowDigits: return lowDigit(thread, byte)
        }
    }

    private static func hexValue(_ byte: UInt8) -> UInt32? {
        switch byte {
        case 0x30...0x39: UInt32(byte - 0x30)
        case 0x41...0x46: UInt32(byte - 0x41 + 10)
        case 0x61...0x66: UInt32(byte - 0x61 + 10)
        default: nil
        }
    }

    private mutating func scalar(_ thread: Thread, _ value: UInt32) -> Thread? {
        let target = derivative(of: thread.operand, by: value)
        return target != Self.empty && isLive(target) ? thread.with(.none, operand: target) : nil
    }

    private func uniform(_ thread: Thread) -> Thread {
        thread.left == 1 ? thread.with(.none) : thread.with(thread.pending, left: thread.left - 1)
    }

    private mutating func start(_ thread: Thread, _ byte: UInt8) -> Thread? {
        switch byte {
        case UInt8(ascii: "\\") where thread.spelling == .free:
            return isLive(thread.operand, low: 0, high: CodePointSet.last) ? thread.with(.escape) : nil
        case UInt8(ascii: "\\") where thread.spelling == .listed:
            let canEscape =
                isLive(thread.operand, low: 0, high: 0x1F) || isLive(thread.operand, low: 0x22, high: 0x22)
                || isLive(thread.operand, low: 0x5C, high: 0x5C)
            return canEscape ? thread.with(.escape) : nil
        case 0..<0x20 where thread.spelling != .raw: return nil
        case 0..<0x80: return scalar(thread, UInt32(byte))
        case 0xC2...0xDF:
            let low = UInt32(byte & 0x1F) << 6
            return bytes(thread, left: 1, low, low | 0x3F)
        case 0xE0...0xEF:
            let low = UInt32(byte & 0x0F) << 12
            return bytes(thread, left: 2, low, low | 0xFFF)
        case 0xF0...0xF4:
            let low = UInt32(byte & 0x07) << 18
            return bytes(thread, left: 3, low, low | 0x3FFFF)
        default: return nil
        }
    }

    /// `left` bytes are to come, of a scalar in `low...high`, which is cut to what UTF-8 spells with as many bytes.
    private mutating func bytes(_ thread: Thread, left: UInt8, _ low: UInt32, _ high: UInt32) -> Thread? {
        if left == 0 {
            let isInside = thread.pending != .bytes || thread.low <= low && low <= thread.high
            return isInside ? scalar(thread, low) : nil
        }
        var first = low
        var last = high
        if thread.pending == .bytes {
            first = max(first, thread.low)
            last = min(last, thread.high)
        } else {
            if left == 2 { first = max(first, 0x800) }
            if left == 3 { first = max(first, 0x10000) }
            last = min(last, CodePointSet.last)
        }
        if last >= 0xD800 && last <= 0xDFFF { last = 0xD7FF }
        guard first <= last else { return nil }
        if first == low && last == high, let target = uniformTarget(thread.operand, first, last) {
            return isLive(target) ? thread.with(.uniformBytes, left: left, operand: target) : nil
        }
        guard isLive(thread.operand, low: first, high: last) else { return nil }
        return thread.with(.bytes, left: left, low: first, high: last)
    }

    /// The derivative by all scalars of the range, if it is one.
    private mutating func uniformTarget(_ id: RegexID, _ low: UInt32, _ high: UInt32) -> RegexID? {
        let entries = partition(of: id)
        let entry = entries[Self.entry(entries, at: low)]
        return entry.high >= high ? entry.target : nil
    }

    private mutating func escaped(_ thread: Thread, _ byte: UInt8) -> Thread? {
        let value: UInt32
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"): value = UInt32(byte)
        case UInt8(ascii: "/") where thread.spelling == .free: value = 0x2F
        case UInt8(ascii: "b"): value = 0x08
        case UInt8(ascii: "f"): value = 0x0C
        case UInt8(ascii: "n"): value = 0x0A
        case UInt8(ascii: "r"): value = 0x0D
        case UInt8(ascii: "t"): value = 0x09
        case UInt8(ascii: "u"): return digits(thread, left: 4, 0, thread.spelling == .free ? 0xFFFF : 0x1F)
        default: return nil
        }
        return scalar(thread, value)
    }

    /// `left` digits are to come, of a UTF-16 unit in `low...high`.
    private mutating func digits(_ thread: Thread, left: UInt8, _ low: UInt32, _ high: UInt32) -> Thread? {
        var last = high
        if thread.pending == .digits { last = min(last, thread.high) }
        guard low <= last else { return nil }
        if left == 0 {
            if 0xD800...0xDBFF ~= low {
                let first = 0x10000 + (low - 0xD800) << 10
                guard isLive(thread.operand, low: first, high: first + 0x3FF) else { return nil }
                return thread.with(.lowEscape, low: first, high: first + 0x3FF)
            }
            return 0xDC00...0xDFFF ~= low ? nil : scalar(thread, low)
        }
        if last == high && (high < 0xD800 || low > 0xDFFF), let target = uniformTarget(thread.operand, low, high) {
            return isLive(target) ? thread.with(.uniformDigits, left: left, operand: target) : nil
        }
        var canGoOn = low < 0xD800 && isLive(thread.operand, low: low, high: min(last, 0xD7FF))
        canGoOn = canGoOn || last > 0xDFFF && isLive(thread.operand, low: max(low, 0xE000), high: last)
        if !canGoOn && low <= 0xDBFF && last >= 0xD800 {
            let first = 0x10000 + (max(low, 0xD800) - 0xD800) << 10
            let final = 0x10000 + (min(last, 0xDBFF) - 0xD800) << 10 + 0x3FF
            canGoOn = isLive(thread.operand, low: first, high: final)
        }
        return canGoOn ? thread.with(.digits, left: left, low: low, high: last) : nil
    }

    /// The second half of a surrogate pair: DC00 to DFFF.
    private mutating func lowDigit(_ thread: Thread, _ byte: UInt8) -> Thread? {
        guard let digit = Self.hexValue(byte) else { return nil }
        if thread.left == 4 { return digit == 0xD ? thread.with(.lowDigits, left: 3) : nil }
        if thread.left == 3 && digit < 0xC { return nil }
        let width = UInt32(1) << (4 * UInt32(thread.left - 1))
        let low = thread.low + (thread.left == 3 ? digit - 0xC : digit) * width
        if thread.left == 1 { return scalar(thread, low) }
        guard isLive(thread.operand, low: low, high: low + width - 1) else { return nil }
        return thread.with(.lowDigits, left: thread.left - 1, low: low, high: low + width - 1)
    }
}

extension Thread {
    fileprivate func with(
        _ pending: Pending, left: UInt8 = 0, operand: Int32? = nil, low: UInt32? = nil, high: UInt32? = nil
    ) -> Thread {
        var next = self
        next.pending = pending
        next.left = left
        let keepsRange = pending != .none && pending != .uniformBytes && pending != .uniformDigits && pending != .escape
        next.low = low ?? (keepsRange ? self.low : 0)
        next.high = high ?? (keepsRange ? self.high : 0)
        if let operand { next.operand = operand }
        return next
    }
}
