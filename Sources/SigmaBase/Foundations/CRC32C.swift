import CSigma

/// The checksum of all files that the engine writes (Castagnoli's polynomial, as in iSCSI).
package enum CRC32C {
    /// - Parameter crc: of the bytes before these; 0: there are none.
    package static func checksum(_ bytes: UnsafeRawBufferPointer, continuing crc: UInt32 = 0) -> UInt32 {
        sigma_crc32c(crc, bytes.baseAddress, bytes.count)
    }
}
