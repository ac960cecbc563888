use dhow_image::LayerForm;

use super::*;

fn parse(text: &str) -> Result<Output, OutputError> {
    let mut stdout = || Err(OutputError::new("standard output"));
    parse_output(text, &mut stdout)
}

#[track_caller]
fn refused(text: &str, message: &str) {
    assert_eq!(parse(text).expect_err(text).to_string(), message);
}

#[test]
fn a_path_alone_is_a_folder_and_a_dash_is_a_tar() {
    assert!(matches!(parse("out"), Ok(Output::Local { dest, delete: false, .. }) if *dest == *"out"));
    refused("-", "standard output");
    refused("type=tar", "standard output");
    assert!(matches!(parse("type=tar,dest=a.tar"), Ok(Output::Tar { dest: ArchiveDest::File(_), .. })));
}

#[test]
fn an_image_has_names_a_form_and_notes() {
    let text =
        r#"type=image,"name=a:1,b",push=true,compression=zstd,compression-level=19,annotation-index.x.Y=z"#;
    let Ok(Output::Image(image)) = parse(text) else { panic!("{text} is an image") };
    assert_eq!(image.names.iter().map(Reference::familiar).collect::<Vec<_>>(), ["a:1", "b:latest"]);
    assert!(image.push && image.store);
    let form = LayerForm { compression: Compression::Zstd, level: Some(19), force: false };
    assert_eq!(image.pack.layers, Some(form));
    let note = Annotation {
        level: AnnotationLevel::Index,
        platform: None,
        key: "x.Y".to_owned(),
        value: "z".to_owned(),
    };
    assert_eq!(image.pack.annotations, [note]);
}

#[test]
fn what_is_not_there_is_refused_by_name() {
    refused("type=image,compression=estargz", "compression=estargz is not supported yet");
    refused("type=image,oci-artifact=true", "oci-artifact of output image is not supported yet");
    assert!(parse("type=image,oci-artifact=false").is_ok());
    refused("type=oci,dest=a,colour=red", "unknown attribute \"colour\" of output oci");
    refused("type=paper", "unknown output type \"paper\"");
    refused("dest=a", "type is required for output \"dest=a\"");
    refused("type=local", "dest is required for local output");
    refused(
        "type=oci,dest=a,compression-level=10",
        "invalid value \"10\" for compression-level of output oci",
    );
    refused("type=image,push=maybe", "invalid value \"maybe\" for push of output image");
    refused("type=image,name=a:1,push-by-digest=true", "cannot push a:1 by digest: it has a tag");
    refused("type=image,store=false", "an image that is neither stored nor pushed is nothing: add push=true");
    refused(
        "type=image,compression=zstd,oci-mediatypes=false",
        "compression=zstd wants oci-mediatypes=true: Docker's types know no zstd",
    );
    refused("type=oci,tar=false", "tar=false wants the folder to write to: add dest=PATH");
}

#[test]
fn docker_without_a_place_to_go_is_an_image_of_this_engine() {
    assert!(matches!(parse("type=docker"), Ok(Output::Image(image)) if !image.push));
    assert!(matches!(parse("type=docker,dest=a"), Ok(Output::Layout { docker: true, .. })));
}

#[test]
fn annotations_say_where_they_stand() {
    use AnnotationLevel::{Index, Manifest, ManifestDescriptor};
    let read = |text: &str| {
        let notes = parse_annotation(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let place = |note: &Annotation| (note.level, note.platform.as_ref().map(Platform::to_string));
        (notes.iter().map(place).collect::<Vec<_>>(), notes[0].key.clone(), notes[0].value.clone())
    };
    let told = |places, key: &str, value: &str| (places, key.to_owned(), value.to_owned());
    assert_eq!(read("k=v"), told(vec![(Manifest, None)], "k", "v"));
    assert_eq!(read("index:k=v=w"), told(vec![(Index, None)], "k", "v=w"));
    assert_eq!(read("a:b=c:d"), told(vec![(Manifest, None)], "a:b", "c:d"));
    assert_eq!(
        read("index,manifest-descriptor[linux/arm64]:k="),
        told(vec![(Index, None), (ManifestDescriptor, Some("linux/arm64".to_owned()))], "k", "")
    );
    for wrong in ["k", "=v", "index[linux/amd64]:k=v", "manifest[nonsense]:k=v"] {
        assert!(parse_annotation(wrong).is_err(), "{wrong}");
    }
}
