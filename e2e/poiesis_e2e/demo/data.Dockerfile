# The demo's data: the example files of Debian's bowtie2 package (phage lambda and 10 000 read pairs), and nothing else.
ARG DEBIAN_BASE=debian:trixie-slim
FROM ${DEBIAN_BASE} AS package
WORKDIR /package
RUN apt-get update && apt-get download -o APT::Sandbox::User=root bowtie2-examples && dpkg-deb -x *.deb unpacked

FROM scratch
COPY --from=package /package/unpacked/usr/share/doc/bowtie2/examples/reference/lambda_virus.fa.gz /
COPY --from=package /package/unpacked/usr/share/doc/bowtie2/examples/reads/reads_1.fq.gz /
COPY --from=package /package/unpacked/usr/share/doc/bowtie2/examples/reads/reads_2.fq.gz /
CMD ["/none"]
