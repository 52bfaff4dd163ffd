import CSigma

/// Opens the first of some libraries that is there, with settings of ours in the place of the environment's.
///
/// - Parameters:
///   - prefixes: of the variables that the library does not see.
///   - settings: that it sees, as `NAME=value`.
/// - Returns: what `dlopen` returned; nil if there is none.
package func openLibrary(
    _ names: [String], hiding prefixes: [String], setting settings: [String]
) -> UnsafeMutableRawPointer? {
    withPointers(names) { names in
        withPointers(prefixes) { prefixes in withPointers(settings) { sigma_open_library(names, prefixes, $0) } }
    }
}

/// A list of C strings that ends with NULL. They stay for good: the library may keep what it found in its environment.
private func withPointers<Result>(
    _ strings: [String], _ body: (UnsafePointer<UnsafePointer<CChar>?>) -> Result
) -> Result {
    let pointers: [UnsafePointer<CChar>?] = strings.map { text in
        let bytes = Array(text.utf8CString)
        let copy = UnsafeMutablePointer<CChar>.allocate(capacity: bytes.count)
        copy.initialize(from: bytes, count: bytes.count)
        return UnsafePointer(copy)
    }
    return (pointers + [nil]).withUnsafeBufferPointer { body($0.baseAddress!) }
}
