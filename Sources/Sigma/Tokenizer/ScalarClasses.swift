import Synchronization

/// What a split pattern asks about a scalar.
struct ScalarClass: OptionSet {
    var rawValue: UInt8

    /// \p{L}
    static let letter = ScalarClass(rawValue: 1)
    /// [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]: what o200k lets begin a word.
    static let beginning = ScalarClass(rawValue: 2)
    /// [\p{Ll}\p{Lm}\p{Lo}\p{M}]: what o200k lets end one.
    static let ending = ScalarClass(rawValue: 4)
    /// \p{N}
    static let number = ScalarClass(rawValue: 8)
    /// \s: White_Space
    static let space = ScalarClass(rawValue: 16)
    /// [\r\n]
    static let newline = ScalarClass(rawValue: 32)
    /// Known to the Unicode version that normalization goes by.
    static let normalized = ScalarClass(rawValue: 64)
    /// Not a class: in `ScalarClasses.leads`, bytes that begin (or wrongly continue) more than one byte.
    static let beyondASCII = ScalarClass(rawValue: 128)

    /// \p{M}
    var isMark: Bool { has(.beginning) && has(.ending) && !has(.letter) }

    @inline(__always)
    func has(_ other: ScalarClass) -> Bool { rawValue & other.rawValue != 0 }

    init(rawValue: UInt8) { self.rawValue = rawValue }

    /// Younger scalars count as unassigned, so that a text has the same tokens whichever Unicode the standard library knows. This is
    /// the version of the regular expressions in tiktoken and Hugging Face's tokenizers.
    static let newestUnicode = 16
    /// The version of the NFC in Hugging Face's tokenizers.
    static let newestNormalizedUnicode = 9

    init(of scalar: Unicode.Scalar) {
        let properties = scalar.properties
        self.init(rawValue: 0)
        guard let age = properties.age, age.major <= Self.newestUnicode else { return }
        switch properties.generalCategory {
        case .uppercaseLetter, .titlecaseLetter: self = [.letter, .beginning]
        case .lowercaseLetter: self = [.letter, .ending]
        case .modifierLetter, .otherLetter: self = [.letter, .beginning, .ending]
        case .nonspacingMark, .spacingMark, .enclosingMark: self = [.beginning, .ending]
        case .decimalNumber, .letterNumber, .otherNumber: self = .number
        default: break
        }
        if age.major <= Self.newestNormalizedUnicode { insert(.normalized) }
        if properties.isWhitespace { insert(.space) }
        if scalar == "\r" || scalar == "\n" { insert(.newline) }
    }
}

/// The classes of all scalars, in pages of 256 that are filled when first asked for: the standard library's own properties cost
/// tens of nanoseconds each.
struct ScalarClasses: @unchecked Sendable {
    static let shared = ScalarClasses()

    private typealias Page = UnsafePointer<ScalarClass>
    private let pages: UnsafeMutablePointer<Atomic<Page?>>
    /// [256]: the class of each ASCII byte, `.beyondASCII` for the others.
    private let leads: UnsafePointer<ScalarClass>

    private init() {
        let pageCount = 0x110000 >> 8
        pages = .allocate(capacity: pageCount)
        for page in 0..<pageCount { (pages + page).initialize(to: Atomic(nil)) }
        let leads = UnsafeMutablePointer<ScalarClass>.allocate(capacity: 256)
        for byte in 0..<256 {
            leads[byte] = byte < 0x80 ? ScalarClass(of: Unicode.Scalar(UInt8(byte))) : .beyondASCII
        }
        self.leads = UnsafePointer(leads)
    }

    /// The class of the scalar at the start of `bytes` (not empty), and how many bytes it takes. An invalid sequence is in no class.
    @inline(__always)
    func classify(_ bytes: UnsafePointer<UInt8>, before end: UnsafePointer<UInt8>) -> (ScalarClass, Int) {
        let lead = leads[Int(bytes[0])]
        return lead == .beyondASCII ? classifyBeyondASCII(bytes, before: end) : (lead, 1)
    }

    @inline(never)
    private func classifyBeyondASCII(
        _ bytes: UnsafePointer<UInt8>, before end: UnsafePointer<UInt8>
    ) -> (ScalarClass, Int) {
        switch UTF8Sequence(bytes, before: end) {
        case .scalar(let value, let length): (self[value], length)
        case .invalid(let length), .incomplete(let length): ([], length)
        }
    }

    @inline(__always)
    subscript(scalar: UInt32) -> ScalarClass {
        let page = Int(scalar >> 8)
        let classes = pages[page].load(ordering: .acquiring) ?? fill(page)
        return classes[Int(scalar & 0xff)]
    }

    @inline(never)
    private func fill(_ page: Int) -> Page {
        let classes = UnsafeMutablePointer<ScalarClass>.allocate(capacity: 256)
        for i in 0..<256 {
            classes[i] = Unicode.Scalar(UInt32(page << 8 | i)).map(ScalarClass.init(of:)) ?? []
        }
        let (exchanged, original) = pages[page].compareExchange(
            expected: nil, desired: Page(classes), ordering: .acquiringAndReleasing)
        guard !exchanged, let original else { return Page(classes) }
        // Another thread was faster.
        classes.deallocate()
        return original
    }
}

/// The first sequence of some bytes, read as UTF-8.
enum UTF8Sequence {
    case scalar(UInt32, length: Int)
    /// A maximal part that no continuation makes valid; it counts as one character.
    case invalid(length: Int)
    /// All bytes there are, and a valid beginning.
    case incomplete(length: Int)

    @inline(__always)
    var length: Int {
        switch self {
        case .scalar(_, let length), .invalid(let length), .incomplete(let length): length
        }
    }

    /// `bytes` is not empty.
    @inline(__always)
    init(_ bytes: UnsafePointer<UInt8>, before end: UnsafePointer<UInt8>) {
        let lead = bytes[0]
        // The second byte has the narrow range: no overlong forms, no surrogates, nothing above U+10FFFF.
        let length: Int
        var value: UInt32
        var low: UInt8 = 0x80
        var high: UInt8 = 0xbf
        switch lead {
        case 0..<0x80:
            self = .scalar(UInt32(lead), length: 1)
            return
        case 0xc2...0xdf: (length, value) = (2, UInt32(lead & 0x1f))
        case 0xe0...0xef:
            (length, value) = (3, UInt32(lead & 0x0f))
            if lead == 0xe0 { low = 0xa0 } else if lead == 0xed { high = 0x9f }
        case 0xf0...0xf4:
            (length, value) = (4, UInt32(lead & 0x07))
            if lead == 0xf0 { low = 0x90 } else if lead == 0xf4 { high = 0x8f }
        default:
            self = .invalid(length: 1)
            return
        }
        for i in 1..<length {
            guard bytes + i < end else {
                self = .incomplete(length: i)
                return
            }
            guard bytes[i] >= low, bytes[i] <= high else {
                self = .invalid(length: i)
                return
            }
            value = value << 6 | UInt32(bytes[i] & 0x3f)
            (low, high) = (0x80, 0xbf)
        }
        self = .scalar(value, length: length)
    }
}
